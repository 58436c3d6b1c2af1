"""NRRD and MetaImage headers written by hand, and damage that SimpleITK does not guard against."""

import gzip
import os

import numpy as np
import pytest
import SimpleITK as sitk

from lamina.errors import FileError, GeometryError, LaminaError
from lamina.io import files_of, read_volume, write_volume
from lamina.volume import Volume

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
VOXELS = ARRAY.tobytes(order="F")
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "2 3 4",
    "space directions": "(1,0,0) (0,2,0) (0,0,3)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(5,6,7)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "5 6 7",
    "ElementSpacing": "1 2 3",
    "DimSize": "2 3 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def _text(fields, changes, form):
    merged = {name: value for name, value in (fields | changes).items() if value is not None}
    return "".join(form.format(name, value) for name, value in merged.items()).encode()


def _nrrd(tmp_path, voxels=VOXELS, **changes):
    changes = {name.replace("_", " "): value for name, value in changes.items()}
    path = tmp_path / "scan.nrrd"
    path.write_bytes(b"NRRD0005\n# by: hand\n" + _text(NRRD, changes, "{}: {}\n") + b"\n" + voxels)
    return path


def _meta(tmp_path, voxels=VOXELS, **changes):
    path = tmp_path / "scan.mha"
    last = {"ElementDataFile": changes.pop("ElementDataFile", "LOCAL")}
    first = {name: value for name, value in META.items() if name not in last}
    path.write_bytes(_text(first, changes, "{} = {}\n") + _text(last, {}, "{} = {}\n") + voxels)
    return path


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_picture_in_colour_stays_one_and_other_channels_are_none(tmp_path, suffix):
    for channels, kind, in_colour in ((3, "u1", True), (3, "i2", False), (2, "u1", False)):
        picture = sitk.GetImageFromArray(np.zeros((5, 4, channels), kind), isVector=True)
        sitk.WriteImage(picture, tmp_path / f"a{suffix}")
        assert read_volume(tmp_path / f"a{suffix}").in_colour == in_colour


@pytest.mark.parametrize(
    ("space", "diagonal", "origin"),
    [
        ("left-posterior-superior", [-1, -2, 3], [-5, -6, 7]),
        ("right-anterior-superior", [1, 2, 3], [5, 6, 7]),
        ("RAS", [1, 2, 3], [5, 6, 7]),
        ("left-anterior-superior", [-1, 2, 3], [-5, 6, 7]),
    ],
)
def test_each_space_of_nrrd_becomes_ras(tmp_path, caplog, space, diagonal, origin):
    volume = read_volume(_nrrd(tmp_path, space=space))
    np.testing.assert_array_equal(np.diag(volume.affine)[:3], diagonal)
    np.testing.assert_array_equal(volume.affine[:3, 3], origin)
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert not caplog.messages


def test_metaimage_becomes_ras(tmp_path, caplog):
    volume = read_volume(_meta(tmp_path, TransformMatrix="0 1 0 1 0 0 0 0 1"))
    assert (volume.orientation, volume.spacing) == ("PLS", (1, 2, 3))
    np.testing.assert_array_equal(volume.affine[:3, 3], [-5, -6, 7])
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert not caplog.messages


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", None])
def test_unknown_directions_are_told(tmp_path, caplog, space):
    placed = {"space": space, "space_dimension": None if space else "3"}
    read_volume(_nrrd(tmp_path, **placed, **_order(placed)))
    assert "does not say how it lies in the body" in caplog.text
    caplog.clear()
    read_volume(_meta(tmp_path, TransformMatrix=None))
    assert "does not say how it lies in the body" in caplog.text


def _order(placed):
    """NRRD wants the space before all fields that depend on it."""
    return {"space_directions": None, "space_origin": None} if placed["space"] is None else {}


@pytest.mark.parametrize(
    ("sizes", "directions", "kinds"),
    [
        ("2 2 3 2", "none (1,0,0) (0,2,0) (0,0,3)", "vector domain domain domain"),
        ("2 3 2 2", "(1,0,0) (0,2,0) (0,0,3) none", "domain domain domain list"),
    ],
)
def test_the_axis_of_nrrd_that_is_not_in_space_is_the_channels(tmp_path, sizes, directions, kinds):
    path = _nrrd(tmp_path, dimension="4", sizes=sizes, space_directions=directions, kinds=kinds)
    stored = ARRAY.ravel(order="F").reshape([int(n) for n in sizes.split()], order="F")
    channels = stored if kinds.startswith("vector") else np.moveaxis(stored, 3, 0)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, channels)
    assert volume.spacing == (1, 2, 3)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_fourth_axis_beside_space_is_the_channels(tmp_path, suffix):
    array = np.arange(48, dtype=np.float32).reshape(2, 4, 3, 2)
    image = sitk.GetImageFromArray(array, isVector=False)
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, path)
    np.testing.assert_array_equal(read_volume(path).array, array.transpose(0, 3, 2, 1))
    turned = np.eye(4)[[3, 1, 2, 0]]
    image.SetDirection(turned.ravel())
    sitk.WriteImage(image, path)
    with pytest.raises(GeometryError, match="fourth axis runs through space"):
        read_volume(path)
    sitk.WriteImage(sitk.Image([2, 3, 4, 5], sitk.sitkVectorUInt8, 3), path)
    with pytest.raises(FileError, match="has 4 axes and 3 components"):
        read_volume(path)


@pytest.mark.parametrize(
    ("changes", "voxels"),
    [
        ({"endian": "big"}, ARRAY.astype(">i2").tobytes(order="F")),
        ({"encoding": "hex"}, VOXELS.hex().encode()),
        ({"encoding": "ascii"}, " ".join(map(str, ARRAY.ravel(order="F"))).encode()),
        ({"line_skip": "1"}, b"a line\n" + VOXELS),
        ({"byte_skip": "4"}, b"more" + VOXELS),
        ({"byte_skip": "-1"}, b"more" + VOXELS),
        ({"encoding": "gzip", "byte_skip": "4"}, gzip.compress(b"more" + VOXELS, mtime=0)),
    ],
    ids=["big endian", "hex", "ascii", "line skip", "byte skip", "from the end", "gzip"],
)
def test_encodings_of_nrrd(tmp_path, changes, voxels):
    np.testing.assert_array_equal(read_volume(_nrrd(tmp_path, voxels, **changes)).array[0], ARRAY)


def test_remarks_in_nrrd_may_be_long(tmp_path):
    path = _nrrd(tmp_path)
    remark = b"\nSegment0_Name:=" + b"long " * 500 + b"\n\n"
    path.write_bytes(path.read_bytes().replace(b"\n\n", remark, 1))
    np.testing.assert_array_equal(read_volume(path).array[0], ARRAY)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize("compressed", [True, False])
def test_voxels_in_a_second_file(tmp_path, suffix, compressed):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY.T), path, useCompression=compressed)
    np.testing.assert_array_equal(read_volume(path).array[0], ARRAY)
    (second,) = [found for found in tmp_path.iterdir() if found != path]
    assert files_of(path) == (path, second)
    second.write_bytes(second.read_bytes()[:-9])
    with pytest.raises(FileError, match=rf"scan{suffix}: cannot be read: its (header|compressed)"):
        read_volume(path)
    second.unlink()
    with pytest.raises(FileError, match=f"its voxels are in '{second.name}', which is no file"):
        read_volume(path)
    assert files_of(path) == (path,)


@pytest.mark.parametrize(
    ("units", "spacing"),
    [
        ('"um" "um" "um"', (0.001, 0.002, 0.003)),
        ('"µm" "µm" "µm"', (0.001, 0.002, 0.003)),
        ('"m" "m" "m"', (1000, 2000, 3000)),
        ('"mm" "mm" "mm"', (1, 2, 3)),
        ('"" "" ""', (1, 2, 3)),
    ],
)
def test_nrrds_may_measure_in_other_units(tmp_path, caplog, units, spacing):
    scale = spacing[0]
    volume = read_volume(_nrrd(tmp_path, space_units=units))
    assert volume.spacing == pytest.approx(spacing)
    assert volume.affine[:3, 3] == pytest.approx([-5 * scale, -6 * scale, 7 * scale])
    told = f"positions are not in mm; they are multiplied by {scale:g}." in caplog.text
    assert told == (scale != 1)


def test_nrrds_of_several_units_are_refused(tmp_path):
    with pytest.raises(FileError, match='axes in space have different units, "um" "mm"'):
        read_volume(_nrrd(tmp_path, space_units='"um" "mm" "mm"'))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": "30000 30000 30000"}, "claims 54000000000000 bytes of voxels, 48 are there"),
        ({"sizes": "0 3 4"}, "axis 0 size is zero"),
        ({"space_directions": "(0,0,0) (0,2,0) (0,0,3)"}, "Zero-valued spacing"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,3)"}, "determinant is 0"),
        ({"type": "block"}, "block"),
        ({"encoding": "bzip2"}, "bzip2 encoding not available"),
        ({"encoding": "gzip"}, "while decompressing"),
        ({"data_file": "LIST"}, "its voxels are in several files, 'LIST'"),
        ({"content": "long " * 500}, "field 'content' is too long"),
        ({"line_skip": "-3"}, "'lineskip' is '-3'"),
    ],
)
def test_nrrd_headers_that_cannot_be_are_refused(tmp_path, changes, message):
    with pytest.raises(LaminaError, match=rf"scan\.nrrd: .*{message}"):
        read_volume(_nrrd(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DimSize": "30000 30000 30000"}, "claims 54000000000000 bytes of voxels, 48 are there"),
        ({"DimSize": "-2 3 4"}, "48 are there"),
        ({"DimSize": "0 3 4"}, "holds no voxels"),
        ({"DimSize": "2 3"}, "claims 3 axes of sizes '2 3'"),
        ({"NDims": "93"}, "claims 93 axes"),
        ({"ElementNumberOfChannels": "2"}, "claims 96 bytes"),
        ({"ElementType": "MET_FOO"}, "Unknown PixelType"),
        ({"ElementSpacing": "nan 1 1"}, "Zero-valued spacing"),
        ({"ElementDataFile": "absent.raw"}, "'absent.raw', which is no file beside it"),
        ({"CompressedData": "True"}, "while decompressing"),
    ],
)
def test_metaimage_headers_that_cannot_be_are_refused(tmp_path, changes, message):
    with pytest.raises(LaminaError, match=rf"scan\.mha: .*{message}"):
        read_volume(_meta(tmp_path, **changes))


def test_complex_voxels_are_refused(tmp_path):
    image = sitk.GetImageFromArray(np.ones((2, 3, 4), np.complex64))
    sitk.WriteImage(image, tmp_path / "scan.nrrd")
    with pytest.raises(FileError, match="complex numbers"):
        read_volume(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("size", ["10", "0", None])
def test_a_wrong_length_of_compressed_voxels_is_refused(tmp_path, size):
    """SimpleITK would return the memory as it found it."""
    path = tmp_path / "scan.mha"
    write_volume(Volume(ARRAY[None], np.eye(4)), path)
    head, line, tail = path.read_bytes().partition(b"CompressedDataSize = ")
    _, _, rest = tail.partition(b"\n")
    path.write_bytes(head + (line + size.encode() + b"\n" if size else b"") + rest)
    with pytest.raises(FileError, match=f"claims {size or 'no'} bytes of compressed voxels"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_images_outside_the_plane_cannot_be_flat_files(tmp_path, suffix):
    affine = np.eye(4)
    affine[2, 3] = 4
    with pytest.raises(FileError, match=r"outside the plane z = 0; write \.nii instead"):
        write_volume(Volume(ARRAY[:1], affine), tmp_path / f"scan{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_names_that_are_no_text_do_not_end_the_process(tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"\xff" + suffix.encode())
    with pytest.raises(FileError, match="name is not valid text"):
        write_volume(Volume(ARRAY[None], np.eye(4)), path)
    path.write_bytes(_meta(tmp_path).read_bytes())
    with pytest.raises(FileError):
        read_volume(path)
