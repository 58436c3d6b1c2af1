"""Volumes: valid once constructed, geometry derived."""

import dataclasses

import numpy as np
import pytest

from lamina.errors import ConfigError, GeometryError
from lamina.geometry import affine_from
from lamina.volume import Volume


def test_what_is_derived_follows_the_array_and_the_affine():
    affine = np.diag([-0.5, 2, 3, 1.0])
    volume = Volume(np.zeros((2, 4, 5, 6)), affine)
    assert volume.num_channels == 2
    assert volume.spatial_shape == (4, 5, 6)
    assert volume.spatial_dims == 3
    assert volume.spacing == (0.5, 2, 3)
    assert volume.voxel_volume == 3
    assert volume.orientation == "LAS"
    assert volume.corners.shape == (8, 3)
    np.testing.assert_allclose(volume.corners[-1], [-1.5, 8, 15])


def test_an_image_has_two_of_everything():
    image = Volume(np.zeros((3, 4, 5), dtype=np.uint8), affine_from((0.1, 0.2)))
    assert image.spatial_dims == 2
    assert image.spacing == (0.1, 0.2)
    assert image.voxel_volume == 0.1 * 0.2
    assert image.orientation == "RA"
    assert image.corners.shape == (4, 3)


@pytest.mark.parametrize("shape", [(4, 5), (1, 2, 3, 4, 5), ()])
def test_another_number_of_axes_is_refused(shape):
    with pytest.raises(GeometryError, match=r"scan\.nii: array has shape .* 2 or 3 spatial axes"):
        Volume(np.zeros(shape), np.eye(4), source="scan.nii")


@pytest.mark.parametrize("shape", [(1, 4, 0, 4), (0, 4, 4), (1, 0, 4)])
def test_an_array_without_voxels_is_refused(shape):
    with pytest.raises(GeometryError, match=r"scan\.nii: array of shape .* holds no voxels"):
        Volume(np.zeros(shape), np.eye(4), source="scan.nii")


@pytest.mark.parametrize("kind", [np.complex64, object, "U1", "M8[s]"])
def test_voxels_that_are_no_real_numbers_are_refused(kind):
    with pytest.raises(ConfigError, match=r"scan\.nii: voxels of type .*; real numbers"):
        Volume(np.empty((1, 2, 2, 2), kind), np.eye(4), source="scan.nii")


def test_an_unusable_affine_is_refused():
    with pytest.raises(GeometryError, match=r"scan\.nii: affine is singular"):
        Volume(np.zeros((1, 2, 2, 2)), np.diag([1, 0, 1, 1]), source="scan.nii")


def test_a_volume_does_not_move_afterwards():
    affine = np.eye(4)
    volume = Volume(np.zeros((1, 2, 2, 2)), affine)
    affine[0, 0] = 7
    assert volume.spacing == (1, 1, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        volume.affine = affine


def test_volumes_on_different_grids_are_told_by_their_files():
    scan = Volume(np.zeros((2, 4, 5, 6)), np.eye(4), "scan.nii")
    label = Volume(np.zeros((1, 4, 5, 6)), np.eye(4), "label.nii")
    scan.check_grid_of(label)
    moved = dataclasses.replace(label, affine=affine_from((1, 1, 1), (0, 0, 1)))
    with pytest.raises(GeometryError, match=r"^scan\.nii and label\.nii: positions differ by 1 mm"):
        scan.check_grid_of(moved)
