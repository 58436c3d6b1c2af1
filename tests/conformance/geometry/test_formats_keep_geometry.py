"""Every format keeps values, types, channels and places, as SimpleITK, nibabel and Pillow see them.

Each of the 48 orientations is taken in turn, straight and oblique, with voxels of three sizes.
"""

import itertools
import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy.spatial.transform import Rotation

from lamina.errors import FileError
from lamina.geometry import affine_from, corner_distance, corners, orientation_of, reorientation
from lamina.io import FORMATS, read_labels, read_volume, write_volume
from lamina.volume import Volume

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha")
PICTURES = (".png", ".tif", ".tiff", ".bmp")
READ_ONLY = (".nhdr", ".mhd", ".npy", ".dcm", ".ima", ".jpg", ".jpeg")
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
ORDERS = ["-".join(pairs) for pairs in itertools.permutations(("RL", "AP", "SI"))]
ORIENTATIONS = ["".join(axes) for order in ORDERS for axes in itertools.product(*order.split("-"))]
IN_PLANE = [name[:2] for name in ORIENTATIONS if name[2] == "S"]
PICTURE_AFFINE = np.diag([-1.0, -1, 1, 1])
RAS_TO_LPS = np.array([-1, -1, 1])


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Some thousand small files, which need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


each_suffix = pytest.mark.parametrize("suffix", VOLUMES)
each_order = pytest.mark.parametrize("order", ORDERS)


def a_grid(orientation, oblique, rng):
    """A grid of up to 7 voxels a side, often 1, whose axes run as said, give or take 40 degrees."""
    shape = tuple(int(size) for size in rng.integers(1, 8, 3))
    affine = affine_from(rng.uniform(0.3, 6, 3))
    if oblique:
        turn = Rotation.from_euler("xyz", rng.uniform(-40, 40, 3), degrees=True)
        affine[:3, :3] = turn.as_matrix() @ affine[:3, :3]
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    turn = reorientation(affine, orientation)
    return turn.affine(affine, shape), tuple(shape[axis] for axis in turn.axes)


def a_flat_grid(orientation, rng):
    """The same in the plane z = 0, for images."""
    shape = tuple(int(size) for size in rng.integers(1, 8, 2))
    affine = affine_from(rng.uniform(0.3, 6, 2))
    affine[:3, :3] = Rotation.from_euler("z", rng.uniform(-0.7, 0.7)).as_matrix() @ affine[:3, :3]
    affine[:2, 3] = rng.uniform(-300, 300, 2)
    turn = reorientation(affine, orientation)
    return turn.affine(affine, shape), tuple(shape[axis] for axis in turn.axes)


def grids(order):
    """A straight and an oblique grid of each of the eight orientations with axes in an order."""
    for orientation in map("".join, itertools.product(*order.split("-"))):
        rng = np.random.default_rng(ORIENTATIONS.index(orientation))
        for oblique in (False, True):
            yield *a_grid(orientation, oblique, rng), rng


def random_values(shape, dtype, rng):
    """Values over the whole range of a type; the width that types are stored in needs its ends."""
    array = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]
    if array.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        array.flat[0] = limits.min or limits.max
    return array


def one_mark(shape, rng):
    """A map of zeros with a single 9, and the index of that."""
    marked = np.zeros(shape, np.uint8)
    index = tuple(int(rng.integers(size)) for size in shape)
    marked[index] = 9
    return marked, index


def place(affine, index):
    """World mm of a voxel, RAS+."""
    return (affine @ [*index, *[0] * (3 - len(index)), 1])[:3]


def place_by_simpleitk(image, index):
    there = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in index]))
    return [*there, 0][:3] * RAS_TO_LPS if len(index) == 2 else there * RAS_TO_LPS


def simpleitk_image(array, affine):
    """An image of SimpleITK's from ``(C, *S)`` and a RAS+ affine."""
    dims = array.ndim - 1
    spacing = np.linalg.norm(affine[:3, :dims], axis=0)
    image = sitk.GetImageFromArray((array if len(array) > 1 else array[0]).T, len(array) > 1)
    image.SetSpacing(spacing)
    image.SetDirection((RAS_TO_LPS[:dims, None] * affine[:dims, :dims] / spacing).ravel())
    image.SetOrigin(RAS_TO_LPS[:dims] * affine[:dims, 3])
    return image


def assert_back(found, volume):
    assert found.array.dtype == volume.array.dtype
    np.testing.assert_array_equal(found.array, volume.array)
    assert found.unit == volume.unit
    distance = corner_distance(
        found.affine, found.spatial_shape, volume.affine, volume.spatial_shape
    )
    assert distance < 1e-3


def test_every_suffix_is_proven_here_or_known_to_be_read_only(tmp_path):
    assert len(set(ORIENTATIONS)) == 48
    suffixes = [suffix for name in FORMATS for suffix in FORMATS.get(name).suffixes]
    assert sorted(suffixes) == sorted((*VOLUMES, *PICTURES, *READ_ONLY))
    for suffix in READ_ONLY:
        for volume in (
            Volume(np.ones((1, 2, 2, 2), np.uint8), np.eye(4)),
            Volume(np.ones((1, 2, 2), np.uint8), PICTURE_AFFINE, unit="px"),
        ):
            with pytest.raises(FileError):
                write_volume(volume, tmp_path / f"scan{suffix}")
    assert not list(tmp_path.iterdir())


@each_suffix
@each_order
def test_volumes_come_back_whole(tmp_path, suffix, order):
    for (affine, shape, rng), dtype in zip(grids(order), itertools.cycle(DTYPES)):
        array = random_values((1 + int(rng.integers(5)), *shape), dtype, rng)
        volume = Volume(array, affine)
        path = tmp_path / (f"scan{suffix}" if rng.integers(2) else f"SCAN{suffix.upper()}")
        write_volume(volume, path)
        assert_back(read_volume(path), volume)


@each_suffix
@pytest.mark.parametrize("dtype", [*DTYPES, "?", "f2", ">i2", ">f4"])
def test_every_type_and_number_of_channels_comes_back(tmp_path, suffix, dtype):
    """Six, seven and nine components are tensors and matrices to some; here they are channels."""
    rng = np.random.default_rng(0)
    for channels, dims in itertools.product((1, 3, 6, 7, 9), (2, 3)):
        array = rng.integers(0, 100, (channels, *(5, 4, 3)[:dims])).astype(dtype)
        if array.dtype.kind in "iu":
            limits = np.iinfo(array.dtype)
            array.flat[:2] = limits.min, limits.max
        volume = Volume(array, np.diag([-0.5, 0.7, 2, 1]))
        write_volume(volume, tmp_path / f"scan{suffix}")
        found = read_volume(tmp_path / f"scan{suffix}")
        np.testing.assert_array_equal(found.array, array)
        assert found.array.dtype.isnative
        kept = {"?": "u1", "f2": "f4"}.get(dtype, array.dtype.newbyteorder("="))
        assert found.array.dtype == kept


@each_suffix
@each_order
def test_simpleitk_finds_a_marked_voxel_of_ours_at_its_place(tmp_path, suffix, order):
    for affine, shape, rng in grids(order):
        marked, index = one_mark(shape, rng)
        write_volume(Volume(marked[None], affine), tmp_path / f"scan{suffix}")
        image = sitk.ReadImage(tmp_path / f"scan{suffix}")
        (found,) = np.argwhere(sitk.GetArrayFromImage(image).T == 9)
        np.testing.assert_allclose(
            place_by_simpleitk(image, found), place(affine, index), atol=1e-3
        )
        ends = itertools.product(*[(0, size - 1) for size in shape])
        there = [place_by_simpleitk(image, end) for end in ends]
        np.testing.assert_allclose(there, corners(affine, shape), atol=1e-3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@each_order
def test_so_does_nibabel(tmp_path, suffix, order):
    for affine, shape, rng in grids(order):
        marked, index = one_mark(shape, rng)
        write_volume(Volume(np.stack([marked, 20 + marked]), affine), tmp_path / f"scan{suffix}")
        image = nibabel.load(tmp_path / f"scan{suffix}")
        array = np.asarray(image.dataobj)
        np.testing.assert_array_equal(array[..., 1], 20 + marked)
        (found,) = np.argwhere(array[..., 0] == 9)
        np.testing.assert_allclose(place(image.affine, found), place(affine, index), atol=1e-3)
        assert "".join(nibabel.aff2axcodes(image.affine)) == orientation_of(affine)
        assert corner_distance(image.affine, image.shape[:3], affine, shape) < 1e-3
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_allclose(image.header.get_zooms()[:3], sides, rtol=1e-6)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        assert corner_distance(image.get_qform(), image.shape[:3], affine, shape) < 0.1


@pytest.mark.parametrize("suffix", [*VOLUMES, ".nhdr", ".mhd"])
@each_order
def test_a_marked_voxel_of_simpleitks_is_found_at_its_place(tmp_path, suffix, order):
    for affine, shape, rng in grids(order):
        marked, index = one_mark(shape, rng)
        # In NIfTI a single slice of vectors is an image; nothing tells it from a volume.
        several = shape[2] > 1 and rng.integers(2)
        channels = np.stack([marked, marked // 9, 255 - marked])[: 3 if several else 1]
        sitk.WriteImage(
            simpleitk_image(channels, affine), tmp_path / f"scan{suffix}", bool(rng.integers(2))
        )
        found = read_volume(tmp_path / f"scan{suffix}")
        np.testing.assert_array_equal(found.array, channels)
        np.testing.assert_allclose(place(found.affine, index), place(affine, index), atol=1e-3)
        assert corner_distance(found.affine, found.spatial_shape, affine, shape) < 1e-3


@pytest.mark.parametrize("kind", ["sform", "qform", "nifti2", "bigendian"])
@each_order
def test_so_is_one_of_nibabels(tmp_path, kind, order):
    for affine, shape, rng in grids(order):
        marked, index = one_mark(shape, rng)
        series = np.stack([marked, 255 - marked], axis=-1)  # channels are the last axis here
        order = ">" if kind == "bigendian" else "<"
        header = nibabel.Nifti1Header(endianness=order)
        header.set_data_dtype(f"{order}i2")
        if kind == "nifti2":
            image = nibabel.Nifti2Image(series, affine)
        else:
            image = nibabel.Nifti1Image(series, affine, header)
        image.set_sform(affine, code=0 if kind == "qform" else 2)
        image.set_qform(affine, code=1 if kind == "qform" else 0)
        nibabel.save(image, tmp_path / "scan.nii.gz")
        found = read_volume(tmp_path / "scan.nii.gz")
        np.testing.assert_array_equal(found.array, np.moveaxis(series, -1, 0))
        # Single precision leaves a quaternion near half a turn this coarse; the sform is exact.
        tolerance = 0.05 if kind == "qform" else 1e-3
        np.testing.assert_allclose(place(found.affine, index), place(affine, index), atol=tolerance)
        assert corner_distance(found.affine, found.spatial_shape, affine, shape) < tolerance


@pytest.mark.parametrize("suffix", VOLUMES)
@pytest.mark.parametrize("orientation", IN_PLANE)
def test_flat_images_keep_their_pixels_at_their_places(tmp_path, suffix, orientation):
    rng = np.random.default_rng(IN_PLANE.index(orientation))
    for channels, dtype in zip((1, 3, 2, 1, 4), ("u1", "u1", "f4", "i2", "f8"), strict=True):
        affine, shape = a_flat_grid(orientation, rng)
        volume = Volume(random_values((channels, *shape), dtype, rng), affine)
        write_volume(volume, tmp_path / f"image{suffix}")
        assert_back(read_volume(tmp_path / f"image{suffix}"), volume)
        marked, index = one_mark(shape, rng)
        write_volume(Volume(marked[None], affine), tmp_path / f"image{suffix}")
        image = sitk.ReadImage(tmp_path / f"image{suffix}")
        (found,) = np.argwhere(sitk.GetArrayFromImage(image).T == 9)
        np.testing.assert_allclose(
            place_by_simpleitk(image, found)[:2], place(affine, index)[:2], atol=1e-3
        )
        sitk.WriteImage(simpleitk_image(marked[None], affine), tmp_path / f"theirs{suffix}")
        theirs = read_volume(tmp_path / f"theirs{suffix}")
        np.testing.assert_array_equal(theirs.array, marked[None])
        assert corner_distance(theirs.affine, theirs.spatial_shape, affine, shape) < 1e-3


@pytest.mark.parametrize("suffix", PICTURES)
@pytest.mark.parametrize(("dtype", "channels"), [("u1", 1), ("u1", 3), ("u2", 1)])
def test_pictures_keep_their_pixels_at_their_places(tmp_path, suffix, dtype, channels):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shape = tuple(int(size) for size in rng.integers(1, 30, 2))
        volume = Volume(
            random_values((channels, *shape), dtype, rng), PICTURE_AFFINE.copy(), unit="px"
        )
        path = tmp_path / f"picture{suffix}"
        if suffix == ".bmp" and dtype == "u2":
            with pytest.raises(FileError, match="BMP does not hold 1 channels of uint16"):
                write_volume(volume, path)
            return
        write_volume(volume, path)
        assert_back(read_volume(path), volume)
        pixels = np.atleast_3d(Image.open(path))
        np.testing.assert_array_equal(pixels.T, volume.array)  # rows from the top, then columns
        image = sitk.ReadImage(path)
        last = [size - 1 for size in shape]
        there = place(volume.affine, last)
        np.testing.assert_allclose(place_by_simpleitk(image, last), there, atol=1e-3)
        # SimpleITK has grey BMP in three equal colours.
        assert (np.atleast_1d(image[last]) == volume.array[:, -1, -1]).all()
        if channels == 1:
            np.testing.assert_array_equal(read_labels(path).array, volume.array)


@pytest.mark.parametrize("dtype", ["u1", ">i2", "f4"])
def test_arrays_lie_as_their_json_file_says(tmp_path, dtype):
    rng = np.random.default_rng(0)
    for orientation in ORIENTATIONS:
        spacing = rng.uniform(0.3, 6, 3).tolist()
        shape = tuple(int(size) for size in rng.integers(1, 8, 3))
        array = rng.integers(0, 99, (2, *shape)).astype(dtype)
        np.save(tmp_path / "scan.npy", array)
        entries = {"spacing": spacing, "orientation": orientation, "channels_first": True}
        (tmp_path / "scan.json").write_text(json.dumps(entries))
        found = read_volume(tmp_path / "scan.npy")
        np.testing.assert_array_equal(found.array, array)
        assert "".join(nibabel.aff2axcodes(found.affine)) == orientation
        np.testing.assert_allclose(found.spacing, spacing)
        np.testing.assert_array_equal(place(found.affine, (0, 0, 0)), 0)
