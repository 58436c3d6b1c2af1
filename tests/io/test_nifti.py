"""NIfTI headers as other programs write them, and as damage leaves them."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from lamina.errors import FileError, GeometryError
from lamina.io import read_volume

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
AFFINE = np.array([[0, -2, 0, 9], [1.5, 0, 0, -8], [0, 0, 3, 7], [0, 0, 0, 1.0]])


def _header(array=ARRAY, **fields):
    """A header of nibabel's with both forms set; ``fields`` are then written over it unchecked."""
    image = nibabel.Nifti1Image(array, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    header = image.header.copy()
    header["magic"], header["vox_offset"], header["scl_slope"] = b"n+1", 352, np.nan
    for name, value in fields.items():
        header[name] = value
    return header


def _file(tmp_path, header, array=ARRAY, name="scan.nii"):
    path = tmp_path / name
    content = header.binaryblock + b"\0" * 4 + array.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def test_the_sform_wins_over_a_qform_that_differs(tmp_path, caplog):
    volume = read_volume(_file(tmp_path, _header(qoffset_x=9.1)))
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert "sform and qform differ; the sform is used" in caplog.text


def test_rounding_is_no_difference(tmp_path, caplog):
    read_volume(_file(tmp_path, _header(qoffset_x=9.001)))
    assert not caplog.messages


def test_the_qform_counts_where_there_is_no_sform(tmp_path, caplog):
    volume = read_volume(_file(tmp_path, _header(sform_code=0, srow_x=[5, 5, 5, 5])))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert not caplog.messages


def test_a_singular_sform_gives_way_to_the_qform_with_a_warning(tmp_path, caplog):
    volume = read_volume(_file(tmp_path, _header(srow_x=[0, 0, 0, 0])))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert "the sform is singular; the qform is used" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [np.nan, 0, 0, 0]},
        {"srow_x": [0, 0, 0, 0], "qform_code": 0},
        {"sform_code": 0, "quatern_b": 3},
        {"sform_code": 0, "qoffset_z": np.inf},
        {"sform_code": 0, "pixdim": [1, 2, np.nan, 3, 1, 1, 1, 1]},
        {"sform_code": 0, "qform_code": 0, "pixdim": [1, 2, 0, 3, 1, 1, 1, 1]},
    ],
)
def test_positions_that_cannot_be_are_refused(tmp_path, fields):
    with pytest.raises(GeometryError, match=r"scan\.nii: affine"):
        read_volume(_file(tmp_path, _header(**fields)))


def test_signs_that_the_standard_leaves_open_are_filled_in(tmp_path):
    header = _header(sform_code=0)
    header["pixdim"][0] = 0
    header["pixdim"][2] *= -1
    np.testing.assert_allclose(read_volume(_file(tmp_path, header)).affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (8 + 2, 1)])
def test_positions_become_millimetres(tmp_path, code, factor):
    volume = read_volume(_file(tmp_path, _header(xyzt_units=code)))
    np.testing.assert_allclose(volume.affine[:3], AFFINE[:3] * factor)


def test_2d_images_need_no_thickness(tmp_path):
    header = _header(ARRAY[..., 0])
    header["sform_code"] = 0
    header["pixdim"][3] = 0
    volume = read_volume(_file(tmp_path, header, ARRAY[..., 0]))
    assert volume.spatial_dims == 2
    np.testing.assert_allclose(volume.affine[:, [0, 1, 3]], AFFINE[:, [0, 1, 3]], atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("i2", "f4"), ("u1", "f4"), (">u2", "f4"), ("i4", "f8"), ("f4", "f4"), ("f8", "f8")],
)
def test_scaling_keeps_the_precision_that_the_values_need(tmp_path, dtype, result):
    array = ARRAY.astype(dtype)
    header = _header(array, scl_slope=0.1, scl_inter=-3)
    if dtype.startswith(">"):
        header = header.as_byteswapped()
    found = read_volume(_file(tmp_path, header, array)).array
    assert found.dtype == result
    np.testing.assert_allclose(found[0], ARRAY * 0.1 - 3, rtol=1e-6, atol=1e-6)


def test_a_scaling_that_changes_nothing_leaves_integers(tmp_path):
    found = read_volume(_file(tmp_path, _header(scl_slope=1, scl_inter=0))).array
    assert found.dtype == np.int16


def test_voxels_are_found_behind_header_extensions(tmp_path):
    image = nibabel.Nifti1Image(ARRAY, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 500))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").array[0], ARRAY)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("spatial_shape", [(4, 5, 6), (4, 5)])
def test_vector_images_of_itk_have_channels(tmp_path, suffix, spatial_shape):
    array = np.random.default_rng(0).random((*spatial_shape, 3)).astype(np.float32)
    path = tmp_path / f"vectors{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), path)
    np.testing.assert_array_equal(read_volume(path).array, array.T)


def test_axes_of_one_voxel_do_not_count(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 1, 4, 1, 1)
    found = read_volume(_file(tmp_path, _header(array), array)).array
    np.testing.assert_array_equal(found, np.moveaxis(array[..., 0, 0], 3, 0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": b"ni1"}, r"another file \(\.img\)"),
        ({"datatype": 1536}, "type float128"),
        ({"datatype": 1}, "type binary"),
        ({"dim": [1, 60, 1, 1, 1, 1, 1, 1]}, "1 axes"),
        ({"dim": [9, 3, 4, 5, 1, 1, 1, 1]}, "9 axes"),
        ({"dim": [5, 3, 4, 1, 1, 5, 1, 1]}, r"5 axes of sizes \(3, 4, 1, 1, 5\)"),
        ({"vox_offset": np.nan}, "from byte nan on"),
        ({"vox_offset": 1e30}, "the file holds 472 bytes"),
        ({"vox_offset": 12}, "from byte 12 on"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "invalid intercept inf"),
        ({"dim": [3, 3, 4, 6, 1, 1, 1, 1]}, "claims 144 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_headers_that_cannot_be_are_refused(tmp_path, name, fields, message):
    if name.endswith(".gz"):
        message = {
            "the file holds 472 bytes": "at most",
            "claims 144 bytes": "after 120 of 144",
        }.get(message, message)
    with pytest.raises(FileError, match=message):
        read_volume(_file(tmp_path, _header(**fields), name=name))


def test_a_gzip_bomb_of_a_claim_is_refused(tmp_path):
    path = _file(tmp_path, _header(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), name="scan.nii.gz")
    with pytest.raises(FileError, match="claims 54000000000000 bytes"):
        read_volume(path)


@pytest.mark.parametrize("cut", [1, 8, 20, 100])
def test_gzip_files_cut_anywhere_are_refused(tmp_path, cut):
    path = _file(tmp_path, _header(), name="scan.nii.gz")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(FileError, match="gzip data are wrong"):
        read_volume(path)


def test_a_checksum_behind_more_data_is_compared(tmp_path):
    path = _file(tmp_path, _header(), np.pad(ARRAY.ravel(), (0, 10**6)), name="scan.nii.gz")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="CRC check failed"):
        read_volume(path)
