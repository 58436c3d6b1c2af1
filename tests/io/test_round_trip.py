"""What is written is read back the same, whatever its type and its shear."""

import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lamina.geometry import corner_distance
from lamina.io import read_volume, write_volume
from lamina.volume import Volume

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), *[(1, -1)] * 3))

each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)
thorough = settings(
    max_examples=48, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def affines(draw):
    """Any of the 48 orientations, tilted or not, with voxels of any three sizes."""
    order, *signs = draw(st.sampled_from(ORIENTATIONS))
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-40, 40)] * 3)), degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix()[:, list(order)] * signs
    affine[:3, :3] *= draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-150, 150)] * 3))
    return affine


@st.composite
def images(draw):
    """``(C, *S)`` in a plane: values over the whole range of any type that files can hold."""
    shape = draw(st.tuples(st.integers(1, 4), *[st.integers(1, 6)] * 2))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]


def _round_trip(volume, path):
    write_volume(volume, path)
    found = read_volume(path)
    assert found.array.dtype == volume.array.dtype
    np.testing.assert_array_equal(found.array, volume.array)
    return found


def _assert_same_place(found, volume):
    used = [*range(volume.spatial_dims), 3]
    tolerance = 1e-4 * min(volume.spacing)
    np.testing.assert_allclose(found.affine[:, used], volume.affine[:, used], atol=tolerance)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@thorough
@given(array=images(), affine=affines())
def test_images_in_any_plane_come_back_exactly_from_nifti(tmp_path, suffix, array, affine):
    volume = Volume(array, affine)
    _assert_same_place(_round_trip(volume, tmp_path / f"image{suffix}"), volume)


@thorough
@given(affine=affines(), size=st.integers(1, 512))
def test_the_qform_is_as_good_as_the_sform_or_absent(tmp_path, affine, size):
    """Quaternions of nearly half a turn are coarse in single precision; then it is left out."""
    shape = (size, 1, size)
    write_volume(Volume(np.zeros((1, *shape), np.uint8), affine), tmp_path / "scan.nii")
    qform, code = nibabel.load(tmp_path / "scan.nii").get_qform(coded=True)
    tolerance = 0.01 * np.linalg.norm(affine[:3, :3], axis=0).min()
    assert code == 0 or corner_distance(qform, shape, affine, shape) < tolerance


def test_ordinary_volumes_carry_both_forms_and_sheared_ones_the_sform(tmp_path):
    codes = []
    for shear in (0, 0.1):
        affine = np.diag([1.0, 2, 3, 1])
        affine[0, 1] = shear
        write_volume(Volume(np.zeros((1, 9, 9, 9), np.uint8), affine), tmp_path / "scan.nii")
        header = nibabel.load(tmp_path / "scan.nii").header
        codes.append((int(header["sform_code"]), int(header["qform_code"])))
    assert codes == [(1, 1), (1, 0)]


@each_suffix
def test_sheared_volumes_keep_their_shear(tmp_path, suffix, caplog):
    affine = np.array([[1, 0.3, 0, 5], [0, 2, 0, -6], [0, 0.4, 3, 7], [0, 0, 0, 1]])
    volume = Volume(np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4), affine)
    _assert_same_place(_round_trip(volume, tmp_path / f"scan{suffix}"), volume)
    assert "not at right angles" in caplog.text


@each_suffix
@pytest.mark.parametrize(
    ("given_dtype", "values", "stored"),
    [
        ("?", [False, True], "u1"),
        ("i8", [0, 255], "u1"),
        ("i8", [-1, 200], "i2"),
        ("i8", [0, 2**40], "u8"),
        ("i8", [-1, 2**40], "i8"),
        ("u8", [0, 2**64 - 1], "u8"),
        ("f2", [0.5, np.inf], "f4"),
        (">i4", [-7, 2**20], "i4"),
        (">f8", [np.pi, np.nan], "f8"),
        ("g", [0.25, -1], "f8"),
    ],
)
def test_types_that_files_lack_become_ones_they_have(tmp_path, suffix, given_dtype, values, stored):
    array = np.array(values, dtype=given_dtype).reshape(1, 2, 1, 1)
    write_volume(Volume(array, np.eye(4)), tmp_path / f"scan{suffix}")
    found = read_volume(tmp_path / f"scan{suffix}").array
    assert found.dtype == stored
    np.testing.assert_array_equal(found, array)


@each_suffix
def test_the_same_volume_gives_the_same_bytes(tmp_path, suffix):
    volume = Volume(np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5), np.diag([1, 2, 3, 1]))
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    write_volume(volume, first)
    write_volume(volume, second)
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".nii.gz":
        flags_and_time = first.read_bytes()[3:8]
        assert flags_and_time == bytes(5), "neither the time of writing nor a file name"


def test_long_axes_make_it_nifti_2(tmp_path):
    volume = Volume(np.arange(40000, dtype=np.uint16).reshape(1, 40000, 1), np.eye(4))
    _round_trip(volume, tmp_path / "line.nii")
    assert isinstance(nibabel.load(tmp_path / "line.nii"), nibabel.Nifti2Image)
