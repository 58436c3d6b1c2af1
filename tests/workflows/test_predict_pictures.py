"""Pictures, and channels in files of their own: what fits is segmented, the rest is told."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import lamina
from lamina.bundle import save_bundle
from lamina.errors import ConfigError, DatasetError, GeometryError
from lamina.files import read_json
from lamina.geometry import affine_from
from lamina.io import read_labels, read_volume, write_volume
from lamina.volume import Volume
from lamina.workflows.predict import predict
from small_bundles import small_bundle

WIDE, HIGH = 40, 28
GREY = np.random.default_rng(0).integers(0, 256, (HIGH, WIDE), np.uint8)
COLOURS = np.stack([GREY, GREY.T.reshape(HIGH, WIDE), 255 - GREY], axis=-1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of colour, of grey, of grey in mm, and of volumes with three channels."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "colour": (("red", "green", "blue"), "px", {}),
        "grey": (("grey",), "px", {}),
        "sized": (("grey",), "mm", {}),
        "volumes": (("CT", "PET", "T1"), "mm", {"spatial_dims": 3}),
    }
    for name, (channels, unit, options) in made.items():
        bundle = small_bundle(
            "lightmedseg", channels=len(channels), **{"spatial_dims": 2} | options
        )
        told = {"channels": channels, "unit": unit}
        if bundle.plan.spatial_dims == 2:
            told["orientation"] = "LP"
        save_bundle(replace(bundle, plan=replace(bundle.plan, **told)), folder / f"{name}.lamina")
    return folder


@pytest.fixture
def pictures(tmp_path):
    """The same content in all forms that pictures come in."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(COLOURS).save(folder / "colour.jpg")
    alpha = np.dstack([COLOURS, np.full_like(GREY, 99)])
    Image.fromarray(alpha).save(folder / "transparent.png")
    Image.fromarray(GREY).save(folder / "grey.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(folder / "grey16.png")
    Image.fromarray(np.dstack([GREY] * 3)).save(folder / "grey_as_colour.png")
    return folder


def masks(out):
    """The picture files in a folder, by name."""
    return {path.name: np.array(Image.open(path)) for path in out.glob("*.png")}


def test_colours_become_masks_of_their_size_and_grey_is_refused(models, pictures, tmp_path):
    result = predict(models / "colour.lamina", pictures, out=tmp_path / "out")
    found = masks(tmp_path / "out")
    assert found.keys() == {"colour.png", "transparent.png", "grey_as_colour.png"}
    for mask in found.values():
        assert (mask.shape, mask.dtype) == ((HIGH, WIDE), np.uint8)
        assert set(np.unique(mask)) <= {0, 3, 7}
    assert result.failures.keys() == {"grey", "grey16"}
    assert (
        "3 are declared (red, green, blue). It is grey: give it in colour."
        in result.failures["grey"]
    )


def test_a_model_of_grey_takes_grey_in_any_form_and_refuses_colours(models, pictures, tmp_path):
    result = predict(models / "grey.lamina", pictures, out=tmp_path / "out")
    found = masks(tmp_path / "out")
    assert found.keys() == {"grey.png", "grey16.png", "grey_as_colour.png"}
    for mask in found.values():  # each picture is scaled by its own grey levels
        np.testing.assert_array_equal(mask, found["grey.png"])
    assert result.failures.keys() == {"colour", "transparent"}
    assert result.failures["colour"].endswith("Save it in grey.")


def test_a_model_in_mm_is_told_the_size_of_a_pixel(models, pictures, tmp_path, cli):
    command = "predict", "-m", models / "sized.lamina", "-i", pictures / "grey.png", "-o"
    done = cli(*command, tmp_path / "unknown")
    assert done.exit_code == 1
    assert "is measured in px, the plan in mm" in done.stderr
    assert "--pixel-size" in done.stderr
    assert cli(*command, tmp_path / "out", "--pixel-size", 0.5).exit_code == 0
    (entry,) = read_json(tmp_path / "out" / "prediction.json")["cases"]
    mask = masks(tmp_path / "out")["grey.png"]
    assert mask.shape == (HIGH, WIDE)
    # A pixel of 0.5 mm has 0.0025 cm².
    assert entry["sizes"]["core"] == pytest.approx(0.0025 * (mask == 7).sum())
    assert entry["settings"]["pixel_size"] == 0.5
    refused = cli(*command, tmp_path / "none", "--pixel-size", 0)
    assert refused.exit_code == 2
    assert "must be a length above 0" in refused.stderr


def test_a_picture_becomes_nifti_where_that_is_asked_for_and_its_size_is_told(
    models, pictures, tmp_path
):
    grey, out = pictures / "grey.png", tmp_path / "out"
    asked = {"pixel_size": 0.5, "output_format": "nifti"}
    assert not predict(models / "sized.lamina", grey, out=out, **asked).failures
    assert sorted(path.name for path in out.iterdir()) == ["grey.nii.gz", "prediction.json"]
    found = read_labels(out / "grey.nii.gz")
    assert (found.unit, found.spacing[:2]) == ("mm", (0.5, 0.5))
    predict(models / "sized.lamina", grey, out=tmp_path / "png", pixel_size=0.5)
    np.testing.assert_array_equal(found.array.squeeze().T, masks(tmp_path / "png")["grey.png"])
    bare = predict(models / "grey.lamina", grey, out=tmp_path / "bare", output_format="nifti")
    assert "does not tell the size of its pixels, which NIfTI needs" in bare.failures["grey"]
    assert "leave out --format" in bare.failures["grey"]


def test_a_model_in_pixels_takes_no_size(models, pictures, tmp_path):
    out, picture = tmp_path / "out", pictures / "colour.jpg"
    result = predict(models / "colour.lamina", picture, out=out, pixel_size=0.5)
    assert "Give it without the size of its pixels" in result.failures["colour"]


def test_python_is_told_the_size_of_a_pixel_too(models, pictures, tmp_path):
    model = lamina.load(models / "sized.lamina")
    found = model.predict(pictures / "grey.png", pixel_size=0.5)
    predict(models / "sized.lamina", pictures / "grey.png", out=tmp_path / "cli", pixel_size=0.5)
    np.testing.assert_array_equal(found.array[0].T, masks(tmp_path / "cli")["grey.png"])
    write_volume(found, tmp_path / "own.png")  # on the picture's own grid, which is in pixels
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "cli" / "grey.png").read_bytes()
    with Image.open(pictures / "grey.png") as grey:
        grey.convert("RGB").save(tmp_path / "threefold.png")
    threefold = model.predict(tmp_path / "threefold.png", pixel_size=0.5)
    np.testing.assert_array_equal(threefold.array, found.array)
    with pytest.raises(GeometryError, match=r"grey\.png: pixels of \(0, 0\) mm"):
        model.predict(pictures / "grey.png", pixel_size=0)


@pytest.mark.parametrize(("name", "file"), [("colour", "colour.jpg"), ("grey", "grey.png")])
def test_an_array_of_a_model_in_pixels_has_no_spacing(models, pictures, name, file):
    model, picture = lamina.load(models / f"{name}.lamina"), read_volume(pictures / file)
    expected = model.predict(pictures / file).array[0]
    np.testing.assert_array_equal(model(picture.array), expected)
    if name == "grey":
        np.testing.assert_array_equal(model(picture.array[0]), expected)
    told = r"spacing = \(1, 1\): the model measures in pixels\. Leave it out"
    with pytest.raises(GeometryError, match=told):
        model(picture.array, spacing=(1, 1))


@pytest.mark.parametrize(("name", "written"), [("IM0000", "us.png"), ("scan.dcm", "scan.png")])
def test_a_dicom_picture_becomes_png_whatever_its_file_is_called(models, tmp_path, name, written):
    pytest.importorskip("pydicom")
    from dicom_scans import save, write_series

    (picture,) = write_series(tmp_path / "slices", size=(WIDE, HIGH, 1))
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(picture, tag)
    save(picture, tmp_path / "us" / name)
    result = predict(models / "grey.lamina", tmp_path / "us", out=tmp_path / "out")
    assert not result.failures
    assert read_labels(tmp_path / "out" / written).spatial_shape == (WIDE, HIGH)


@pytest.fixture
def channels(tmp_path):
    """A scan of three channels, in one file and in three."""
    rng = np.random.default_rng(1)
    array = rng.normal(size=(3, 18, 17, 20)).astype(np.float32)
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    write_volume(Volume(array, affine_from((1, 1, 1))), whole / "leg.nii.gz")
    for number, channel in enumerate(array):
        volume = Volume(channel[None], affine_from((1, 1, 1)))
        write_volume(volume, apart / f"leg_{number:04d}.nii.gz")
    return whole, apart


def test_numbered_files_are_the_channels_of_one_scan(models, channels, tmp_path):
    whole, apart = channels
    for name, folder in (("a", whole), ("b", apart)):
        assert not predict(models / "volumes.lamina", folder, out=tmp_path / name).failures
    expected = read_labels(tmp_path / "a" / "leg.nii.gz").array
    np.testing.assert_array_equal(read_labels(tmp_path / "b" / "leg.nii.gz").array, expected)
    assert len(read_json(tmp_path / "b" / "prediction.json")["cases"]) == 1


def test_a_scan_that_lacks_a_channel_is_listed_with_what_is_needed(models, channels, tmp_path):
    _, apart = channels
    (apart / "leg_0001.nii.gz").unlink()
    result = predict(models / "volumes.lamina", apart, out=tmp_path / "out")
    assert result.failures.keys() == {"leg_0000", "leg_0002"}
    told = result.failures["leg_0000"]
    assert "1 channels, 3 are declared (CT, PET, T1)" in told
    assert "in leg_0000, leg_0001, leg_0002, or correct" in told


def test_the_first_of_numbered_files_brings_the_others_along(models, channels, tmp_path):
    whole, apart = channels
    model = lamina.load(models / "volumes.lamina")
    expected = model.predict(whole / "leg.nii.gz").array
    files = [apart / f"leg_{number:04d}.nii.gz" for number in range(3)]
    np.testing.assert_array_equal(model.predict(*files).array, expected)
    np.testing.assert_array_equal(model.predict(files[0]).array, expected)
    assert not predict(models / "volumes.lamina", files[0], out=tmp_path / "out").failures
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "leg.nii.gz").array, expected)


def test_a_file_that_is_numbered_and_holds_all_channels_stands_alone(models, channels):
    whole, apart = channels
    model, numbered = lamina.load(models / "volumes.lamina"), whole / "leg_0000.nii.gz"
    expected = model.predict((whole / "leg.nii.gz").rename(numbered)).array
    for number in range(1, 4):  # as many as could be channels, and one more: scans in time
        shutil.copy(apart / "leg_0001.nii.gz", whole / f"leg_{number:04d}.nii.gz")
    np.testing.assert_array_equal(model.predict(numbered).array, expected)


def test_a_channel_that_is_not_beside_the_first_is_named(models, channels, tmp_path):
    _, apart = channels
    (apart / "leg_0002.nii.gz").unlink()
    first = apart / "leg_0000.nii.gz"
    needed = "in one file or in leg_0000, leg_0001, leg_0002, or correct"
    with pytest.raises(DatasetError, match=needed):
        lamina.load(models / "volumes.lamina").predict(first)
    found = predict(models / "volumes.lamina", first, out=tmp_path / "out")
    assert needed in found.failures["leg_0000"]


def test_a_volume_stands_alone(models, channels):
    whole, apart = channels
    model, scan = lamina.load(models / "volumes.lamina"), read_volume(whole / "leg.nii.gz")
    np.testing.assert_array_equal(
        model.predict(scan).array, model.predict(whole / "leg.nii.gz").array
    )
    with pytest.raises(ConfigError, match=r"a volume among 2; it must stand alone\. Give one that"):
        model.predict(scan, apart / "leg_0000.nii.gz")
    with pytest.raises(DatasetError, match=r"images: none are given\. Give a scan"):
        model.predict()


@pytest.mark.parametrize(
    ("model", "content", "suffix"), [("grey", GREY, ".png"), ("colour", COLOURS, ".jpg")]
)
def test_numbered_pictures_are_frames_and_no_channels(models, tmp_path, model, content, suffix):
    names = [f"frame_{number:04d}" for number in range(3)]
    for name in names:
        Image.fromarray(content).save(tmp_path / f"{name}{suffix}")
    predict(models / f"{model}.lamina", tmp_path, out=tmp_path / "out")
    assert sorted(masks(tmp_path / "out")) == [f"{name}.png" for name in names]
