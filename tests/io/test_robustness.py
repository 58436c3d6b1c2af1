"""Odd, damaged and foreign files load or give one clear error, as their manifest says."""

import csv
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from lamina.errors import FileError, GeometryError, LabelError, LaminaError
from lamina.geometry import affine_from, check_same_grid
from lamina.io import is_scan, read_labels, read_volume, strip_suffix, write_volume
from lamina.labels import LabelSet

ROBUSTNESS = Path(__file__).resolve().parents[3] / "shared" / "data" / "robustness"
EITHER = ("load or clear error", "clear error or grey", "error or fallback", "round or error")
LABELS = LabelSet(values={"Anterior": 1, "Posterior": 2})


def _manifest():
    if not ROBUSTNESS.is_dir():
        skip = pytest.mark.skip(reason=f"{ROBUSTNESS} does not exist")
        return [pytest.param("", "", marks=skip)]
    with (ROBUSTNESS / "manifest.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] in ("nifti", "analyze")]
    return [pytest.param(row["file"], row["expected"], id=Path(row["file"]).name) for row in rows]


def _foreign(*suffixes):
    """Files that other projects wrote; without them, one name that is not there, which skips."""
    found = sorted(
        path.relative_to(ROBUSTNESS).as_posix()
        for path in ROBUSTNESS.rglob("*")
        if path.name.endswith(suffixes) and "synthetic" not in path.parts[-2]
    )
    return found or ["absent"]


@pytest.fixture(scope="module")
def scans(shared):
    return shared / "data" / "robustness" / "synthetic_nifti"


def _sound_label(path):
    return path.with_name("00_ok_label.nii.gz")


def use(path):
    """Take a file as far as training would: images are read, labels also checked and paired."""
    if "_label" not in path.name:
        return read_volume(path)
    image, labels = read_volume(path.with_name("00_ok_image.nii.gz")), read_labels(path)
    LABELS.encode(labels.array, path.name)
    pair = f"{path.name} and its image"
    check_same_grid(labels.affine, labels.spatial_shape, image.affine, image.spatial_shape, pair)
    return labels


@pytest.mark.parametrize(("file", "expected"), _manifest())
def test_behaves_as_its_manifest_says(shared, file, expected):
    path = shared / "data" / "robustness" / file
    if "when paired" in expected and path.read_bytes() == _sound_label(path).read_bytes():
        pytest.skip("holds no fault: it is a copy of the sound label; made anew in the test below")
    error = None
    try:
        assert use(path).array.dtype.isnative
    except LaminaError as caught:
        error = caught
    if expected not in EITHER:
        assert (error is None) == expected.startswith("load"), error
    if error is not None:
        assert path.name in error.message
        assert error.remedy
        assert "\n" not in str(error)


@pytest.mark.parametrize("fault", ["shift", "scale"])
def test_labels_on_another_grid_than_their_image_are_refused(scans, tmp_path, fault):
    image = "00_ok_image.nii.gz"
    (tmp_path / image).write_bytes((scans / image).read_bytes())
    labels = read_labels(scans / "00_ok_label.nii.gz")
    change = affine_from((1, 1, 1), (50, 0, 0)) if fault == "shift" else affine_from((2, 2, 2))
    moved = tmp_path / f"{fault}_label.nii.gz"
    write_volume(replace(labels, affine=change @ labels.affine), moved)
    with pytest.raises(GeometryError, match=r"positions differ by \d+.* mm at a corner"):
        use(moved)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("01_empty.nii.gz", FileError, "is empty"),
        ("02_truncated.nii.gz", FileError, "gzip data are wrong"),
        ("03_truncated.nii", FileError, "claims 249900 bytes .* holds 125126 bytes"),
        ("07_text.nii.gz", FileError, "is no NIfTI file"),
        ("08_bad_magic.nii", FileError, "magic bytes are b'XXXX'"),
        ("09_huge_dims.nii", FileError, "claims 108000000000000 bytes"),
        ("10_negative_dim.nii", FileError, r"sizes \(-5, 51, 35\)"),
        ("11_bad_datatype.nii", FileError, "unknown type 9999"),
        ("12_bitflip.nii.gz", FileError, "gzip data are wrong"),
        ("29_complex64.nii.gz", FileError, "type complex64"),
        ("30_rgb24.nii.gz", FileError, "type RGB"),
        ("33_analyze.img", FileError, r"no known scan format. Known: .*\.nii"),
        ("44_singular_affine.nii", GeometryError, "singular"),
        ("45_nan_affine.nii", GeometryError, "NaN"),
        ("46_zero_pixdim.nii", GeometryError, "spacing 0 x 0 x 0 mm"),
        ("52_5d.nii.gz", FileError, r"5 axes of sizes \(35, 51, 1, 1, 3\)"),
        ("56_zero_size.nii.gz", FileError, r"sizes \(0, 51, 35\)"),
        ("62_label_fraction.nii.gz", LabelError, "1324 voxels are no whole numbers: 0.5"),
        ("63_label_255.nii.gz", LabelError, r"\[255, 510\] are not declared"),
        ("64_label_negative.nii.gz", LabelError, r"\[-2, -1\] are not declared"),
        ("66_label_shape_mismatch.nii.gz", GeometryError, "34 x 51 x 35 and 35 x 51 x 35"),
        ("69_label_extra_class.nii.gz", LabelError, r"\[3\] are not declared"),
    ],
)
def test_errors_say_what_is_wrong(scans, name, error, message):
    with pytest.raises(error, match=message):
        use(scans / name)


def test_a_huge_claim_takes_no_memory(scans):
    tracemalloc.start()
    with pytest.raises(FileError):
        read_volume(scans / "09_huge_dims.nii")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize(
    "name",
    [
        "05_not_gzip.nii.gz",
        "06_gzip_named_nii.nii",
        "25_float64.nii.gz",
        "32_nifti2.nii.gz",
        "50_4d_singleton.nii.gz",
        "70_ünïcode näme 画像.nii.gz",
        "71.name.with.dots.nii.gz",
        "72_UPPER.NII.GZ",
    ],
)
def test_the_same_scan_in_another_guise_is_the_same_scan(scans, name):
    expected, volume = read_volume(scans / "00_ok_image.nii.gz"), read_volume(scans / name)
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_array_equal(volume.affine, expected.affine)


def test_stored_scaling_is_applied_and_unset_scaling_is_not(scans):
    """The manifest says that 34 equals 26 once scaled; it stores 26 as it is, with 0.5 x - 100."""
    plain = read_volume(scans / "26_int16.nii.gz").array
    scaled = read_volume(scans / "34_scl_slope.nii.gz").array
    assert (plain.dtype, scaled.dtype) == (np.int16, np.float32)
    np.testing.assert_array_equal(scaled, 0.5 * plain - 100)
    np.testing.assert_array_equal(
        scaled[0], nibabel.load(scans / "34_scl_slope.nii.gz").get_fdata()
    )
    for name in ("31_bigendian.nii.gz", "35_scl_zero.nii", "36_scl_nan.nii"):
        np.testing.assert_array_equal(read_volume(scans / name).array, plain)


def test_non_finite_voxels_are_kept(scans):
    assert np.isnan(read_volume(scans / "20_nan.nii.gz").array).sum() == 27
    infinite = read_volume(scans / "21_inf.nii.gz").array
    assert {np.inf, -np.inf} <= set(infinite[np.isinf(infinite)].tolist())


def test_geometry_is_read_as_it_stands(scans, caplog):
    lps = read_volume(scans / "41_lps_aniso.nii.gz")
    assert (lps.orientation, lps.spacing) == ("LPS", (1, 1, 2.5))
    assert not caplog.messages
    assert read_volume(scans / "40_no_qform_sform.nii.gz").spacing == (1, 1, 1)
    assert "orientation is a guess" in caplog.text
    read_volume(scans / "43_sheared.nii.gz")
    assert "not at right angles" in caplog.text


def test_swapped_axes_put_the_same_values_at_the_same_places(scans):
    plain = read_volume(scans / "00_ok_image.nii.gz")
    swapped = read_volume(scans / "47_axes_swapped.nii.gz")
    world = np.indices(plain.spatial_shape).reshape(3, -1).T @ plain.affine[:3, :3].T
    inverse = np.linalg.inv(swapped.affine)
    index = (world + plain.affine[:3, 3]) @ inverse[:3, :3].T + inverse[:3, 3]
    assert np.allclose(index, np.round(index), atol=1e-4)
    found = swapped.array[0][tuple(np.round(index).astype(int).T)]
    np.testing.assert_array_equal(found, plain.array.ravel())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("50_4d_singleton.nii.gz", (1, 35, 51, 35)),
        ("51_4d_3channels.nii.gz", (3, 35, 51, 35)),
        ("53_2d.nii.gz", (1, 35, 51)),
        ("54_single_slice.nii.gz", (1, 35, 51, 1)),
        ("55_tiny_3x3x3.nii.gz", (1, 3, 3, 3)),
    ],
)
def test_axes_become_channels_and_space(scans, name, shape):
    assert read_volume(scans / name).array.shape == shape


@pytest.mark.parametrize("name", ["60_label_float.nii.gz", "61_label_nearint.nii.gz"])
def test_labels_stored_as_floats_become_integers(scans, name):
    expected = read_labels(scans / "00_ok_label.nii.gz").array
    labels = read_labels(scans / name).array
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


def test_names_of_cases_come_from_names_of_files(scans):
    names = {path.name: path for path in scans.iterdir()}
    assert strip_suffix(names["71.name.with.dots.nii.gz"]) == "71.name.with.dots"
    assert strip_suffix(names["72_UPPER.NII.GZ"]) == "72_UPPER"
    assert not is_scan(names["33_analyze.img"])


@pytest.mark.parametrize("file", _foreign(".nii", ".nii.gz"))
def test_foreign_nifti_files_match_nibabel(shared, file):
    path = shared / "data" / "robustness" / file
    if path.name == "row_major.dconn.nii":
        with pytest.raises(FileError, match="6 axes"):
            read_volume(path)
        return
    image, volume = nibabel.load(path), read_volume(path)
    np.testing.assert_allclose(volume.affine, image.affine, atol=1e-6)
    voxels = np.moveaxis(np.atleast_3d(image.get_fdata())[..., None], 3, 0)
    np.testing.assert_allclose(volume.array, voxels.reshape(volume.array.shape), rtol=1e-6)


@pytest.mark.parametrize("file", _foreign(".nrrd", ".mha"))
def test_foreign_nrrd_files_match_simpleitk(shared, file):
    path = shared / "data" / "robustness" / file
    image, volume = sitk.ReadImage(path), read_labels(path)
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image).T)
    last = [size - 1 for size in volume.spatial_shape]
    there = volume.affine @ [*last, 1]
    np.testing.assert_allclose(
        there[:3] * [-1, -1, 1], image.TransformIndexToPhysicalPoint(last), atol=1e-6
    )
