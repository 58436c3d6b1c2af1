"""What a server's worker does with an upload is what predict does with the file."""

import base64
import io
import json
import re
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from PIL import Image

from small_bundles import small_bundle

pytest.importorskip("fastapi")

from lamina.bundle import save_bundle
from lamina.data.case import Case
from lamina.errors import ConfigError, DatasetError, FileError, LaminaError, ResourceError
from lamina.io import read_labels, read_volume, write_volume
from lamina.labels import LabelSet
from lamina.pretrained import FOLDER
from lamina.report.structures import describe_structures
from lamina.serve.jobs import Cancelled, Work
from lamina.volume import Volume
from lamina.workflows.predict import predict
from lamina.workflows.serve import find_models, read_token
from lamina.workflows.serve import segmenter as job
from lamina.workflows.serve.segmenter import Segmenter


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained models: of volumes, of pictures, and of pictures measured in mm."""
    folder = tmp_path_factory.mktemp("models")
    save_bundle(small_bundle("lightmedseg"), folder / "volumes.lamina")
    flat = small_bundle("tinyunet", channels=3)
    save_bundle(flat, folder / "sized.lamina")
    flat = replace(flat, plan=replace(flat.plan, unit="px"))
    save_bundle(flat, folder / "pictures.lamina")
    return folder


@pytest.fixture(scope="module")
def segmenter(models):
    return Segmenter({name: file for name, (file, _) in find_models(models).items()})


@pytest.fixture
def segment(segmenter, tmp_path):
    """Do one job on files that were uploaded by these names."""
    told = []

    def doing(files, model="volumes", tell=lambda *call: told.append(call), pixel_size=None):
        upload, out = tmp_path / "job" / "upload", tmp_path / "job" / "result"
        upload.mkdir(parents=True)
        out.mkdir()
        stored = {}
        for name, content in files.items():
            path = upload / f"{len(stored):05d}{name[name.index('.') :] if '.' in name else ''}"
            path.write_bytes(content)
            stored[path] = name
        about = {"model": model, "files": stored, "pixel_size": pixel_size}
        result = segmenter(Work(job_id="1", name="Nobody", out=out, **about), tell)
        return json.loads(json.dumps(result, allow_nan=False)), out, told

    return doing


@pytest.fixture
def scan(tmp_path):
    """An oblique scan that no grid fits by chance."""
    rng, turn = np.random.default_rng(3), np.deg2rad(20)
    affine = np.diag([1.1, 0.9, 2.2, 1.0])
    affine[:2, :2] = [[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, 3] = 7, -8, 9
    path = tmp_path / "Nobody Known.nii.gz"
    write_volume(Volume(rng.normal(100, 9, (1, 21, 18, 13)).astype(np.float32), affine), path)
    return path


def test_label_values_are_those_of_predict(segment, scan, models, tmp_path):
    result, out, told = segment({scan.name: scan.read_bytes()})
    predict(models / "volumes.lamina", scan, out=tmp_path / "cli")
    mine, theirs = (
        read_labels(out / "segmentation.nii.gz"),
        read_labels(tmp_path / "cli" / scan.name),
    )
    assert mine.array.dtype == theirs.array.dtype
    assert mine.array.tobytes() == theirs.array.tobytes()
    assert np.array_equal(mine.affine, theirs.affine)
    assert (out / "segmentation.nii.gz").read_bytes() == (tmp_path / "cli" / scan.name).read_bytes()
    shown = read_volume(out / "scan.nii.gz")
    assert np.array_equal(shown.array, read_volume(scan).array)
    assert np.allclose(result["affine"], mine.affine)
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages == ["reading", "segmenting", "writing", "drawing"]
    assert set(result["files"].values()) == {"scan", "segmentation", "mesh", "report"}
    assert all((out / name).is_file() for name in result["files"])


def test_structures_are_measured_and_what_is_odd_is_flagged(segment, scan):
    result, out, _ = segment({scan.name: scan.read_bytes()})
    found = read_labels(out / "segmentation.nii.gz")
    voxel_ml = np.prod(found.spacing) / 1000
    for structure in result["structures"]:
        count = np.count_nonzero(found.array == structure["value"])
        assert structure["size"] == pytest.approx(count * voxel_ml, abs=1e-3)
        assert ("not found" in structure["flags"]) == (count == 0)
    page = (out / "report.html").read_text()
    assert "Nobody" in page
    assert "Nobody" not in re.search("<title>.*</title>", page)[0]
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_voxels_of_a_tilted_gantry_are_measured_as_they_lean():
    array = np.zeros((1, 9, 9, 9), np.uint8)
    array[:, 2:5, 2:5, 2:5] = 3
    affine = np.diag([1.0, 1, 2, 1])
    affine[1, 2] = 1.5  # each slice lies further back, at the same distance
    core, rim = describe_structures(Volume(array, affine), LabelSet(values={"core": 7, "rim": 3}))
    assert (core["size"], core["flags"]) == (0, ["not found"])
    assert rim["size"] == pytest.approx(27 * 2 / 1000)
    assert rim["flags"] == []
    array[:, 6:9, 6:9, 6:9] = 3
    flags = describe_structures(Volume(array, affine), LabelSet(values={"rim": 3}))[0]["flags"]
    assert flags == ["touches the edge of the scan", "in 2 pieces"]


def test_a_picture_comes_back_as_predict_writes_it_and_for_the_viewer(segment, models, tmp_path):
    pixels, content = np.random.default_rng(0).integers(0, 255, (40, 33, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    result, out, _ = segment({"mole.png": content.getvalue()}, "pictures")
    (tmp_path / "mole.png").write_bytes(content.getvalue())
    predict(models / "pictures.lamina", tmp_path / "mole.png", out=tmp_path / "cli")
    theirs = (tmp_path / "cli" / "mole.png").read_bytes()
    assert (out / "segmentation.png").read_bytes() == theirs
    assert result["files"]["segmentation.png"] == "picture"
    shown = read_labels(out / "segmentation.nii.gz").array
    assert np.array_equal(shown[0].squeeze(), read_labels(out / "segmentation.png").array[0])
    for structure in result["structures"]:
        found = np.count_nonzero(shown == structure["value"])
        assert (structure["size"], structure["unit"]) == (found, "px")


@pytest.mark.parametrize("in_colour", [True, False])
def test_only_a_picture_in_colour_is_shown_in_colour(segment, in_colour):
    channels = np.broadcast_to(np.array([200, 60, 10], np.uint8), (40, 33, 3))
    parts = {"mole": channels} if in_colour else {f"echo_{i}": channels[..., i] for i in range(3)}
    files = {}
    for name, pixels in parts.items():
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "png")
        files[f"{name}.png"] = content.getvalue()
    _, out, _ = segment(files, "pictures")
    assert (nibabel.load(out / "scan.nii.gz").get_data_dtype().names is not None) == in_colour
    (drawn,) = re.findall('data:image/png;base64,([^"]+)', (out / "report.html").read_text())
    with Image.open(io.BytesIO(base64.b64decode(drawn))) as page:
        shown = np.asarray(page.convert("RGB"))
    assert ((shown == (200, 60, 10)).all(-1).sum() > 1000) == in_colour


def test_a_picture_whose_pixels_are_told_stays_a_picture(segment, models, tmp_path):
    pixels, content = np.random.default_rng(1).integers(0, 256, (40, 60, 3), "u1"), io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    (tmp_path / "mole.png").write_bytes(content.getvalue())
    predict(models / "sized.lamina", tmp_path / "mole.png", out=tmp_path / "cli", pixel_size=0.5)
    result, out, _ = segment({"mole.png": content.getvalue()}, "sized", pixel_size=0.5)
    assert "Pixels were said to be 0.5 mm wide." in result["flags"]
    theirs = (tmp_path / "cli" / "mole.png").read_bytes()
    assert (out / "segmentation.png").read_bytes() == theirs
    for name in ("scan.nii.gz", "segmentation.nii.gz"):  # the viewer must name no side of the body
        shown = nibabel.load(out / name)
        assert shown.header.get_xyzt_units()[0] == "unknown"
        np.testing.assert_allclose(np.abs(np.diag(shown.affine))[:2], (1, 1))
    np.testing.assert_allclose(np.abs(np.diag(result["affine"]))[:2], (1, 1))


def test_a_picture_whose_pixels_are_not_told_is_refused_by_a_model_in_mm(segment):
    content = io.BytesIO()
    Image.new("RGB", (60, 40)).save(content, "png")
    with pytest.raises(LaminaError, match=r"mole\.png") as caught:
        segment({"mole.png": content.getvalue()}, "sized")
    assert "size" in caught.value.remedy or "side" in caught.value.remedy


def test_a_series_comes_back_as_dicom_objects_too(segment, models, tmp_path):
    pytest.importorskip("highdicom")
    from dicom_scans import OBLIQUE, PATIENT, write_series

    write_series(tmp_path / "series", OBLIQUE, size=(24, 20, 8))
    files = {f"Nobody/{path.name}": path.read_bytes() for path in (tmp_path / "series").iterdir()}
    result, out, _ = segment(files)
    kinds = {"scan", "segmentation", "seg", "rtstruct", "mesh", "report"}
    assert set(result["files"].values()) == kinds
    predict(models / "volumes.lamina", tmp_path / "series", out=tmp_path / "cli")
    theirs = read_labels(tmp_path / "cli" / "series.nii.gz")
    assert read_labels(out / "segmentation.nii.gz").array.tobytes() == theirs.array.tobytes()
    assert PATIENT["PatientID"] not in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"Nobody Known.nii.gz": b"nothing"}, "Nobody Known.nii.gz: is no NIfTI file"),
        ({"a/IM1": b"nothing"}, "No scan is among the files"),
        ({"picture.png": b"nothing"}, "picture.png: "),
    ],
)
def test_errors_call_files_as_the_user_does_and_tell_no_path(segment, tmp_path, files, said):
    with pytest.raises(FileError) as error:  # the log tells kinds of errors apart
        segment(files)
    assert error.value.message.startswith(said)
    assert str(tmp_path) not in str(error.value)


def test_a_job_ends_between_two_windows_where_it_is_cancelled(segment, scan):
    def tell(stage, progress):
        if stage == "segmenting":
            raise Cancelled

    with pytest.raises(Cancelled):
        segment({scan.name: scan.read_bytes()}, tell=tell)


def test_models_are_found_by_name_and_damaged_ones_left_out(models, tmp_path, caplog):
    assert list(find_models(models)) == ["pictures", "sized", "volumes"]
    assert list(find_models(models / "volumes.lamina")) == ["volumes"]
    run = tmp_path / "runs" / "liver"
    run.mkdir(parents=True)
    (run / "model.lamina").write_bytes((models / "volumes.lamina").read_bytes())
    (tmp_path / "runs" / "bad.lamina").write_bytes(b"bad")
    assert list(find_models(tmp_path / "runs")) == ["liver"]
    assert "bad.lamina is left out" in caplog.text
    assert list(find_models(run)) == ["liver"]
    with pytest.raises(DatasetError, match="no model"):
        find_models(tmp_path)


def test_a_model_is_described_by_its_bundle(models):
    _, told = find_models(models)["volumes"]
    assert [(label.name, label.value) for label in told.labels] == [("rim", 3), ("core", 7)]
    assert (told.network, told.channels, told.spatial_dims) == ("lightmedseg", ["channel 0"], 3)
    assert told.scores == {"mean_dice": 0.5}
    assert told.card.startswith(f"# {told.title}\n")


def test_a_token_comes_from_one_place(tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert read_token(None, tmp_path / "token") == "0123456789abcdef"
    assert read_token(None, None) is None
    assert read_token(None, None, no_token=True) == ""
    for wrong in [("x", tmp_path / "token"), ("", None)]:
        with pytest.raises(ConfigError, match="token"):
            read_token(*wrong)
    with pytest.raises(LaminaError, match="cannot be read"):
        read_token(None, tmp_path / "gone")


def test_what_is_unusual_about_a_scan_is_told(tiny_run, tiny_dataset, tmp_path):
    first = read_volume(tiny_dataset / "imagesTr" / "ball_000.nii.gz")
    file = tmp_path / "upload" / "00000.nii.gz"
    write_volume(replace(first, affine=first.affine @ np.diag([1, 1, 3, 1])), file)
    (tmp_path / "result").mkdir()
    work = Work(
        job_id="1", model="balls", name="thick", files={file: "t.nii.gz"}, out=tmp_path / "result"
    )
    told = Segmenter({"balls": tiny_run / "model.lamina"})(work, lambda *_: None)
    (spacing,) = (flag for flag in told["flags"] if flag.startswith("Voxels"))
    assert spacing.startswith("Voxels are 6 mm from head to foot; in training they were 2")


@pytest.fixture
def pair(tmp_path):
    """A model of two channels, and two images that it takes for one patient's."""
    file = tmp_path / "pair.lamina"
    save_bundle(small_bundle("lightmedseg", channels=2), file)
    rng, images = np.random.default_rng(5), {}
    for place, name in enumerate(("b.nii.gz", "a.nii.gz")):
        path = tmp_path / "job" / "upload" / f"{place:05d}.nii.gz"
        write_volume(Volume(rng.normal(size=(1, 9, 8, 7)).astype(np.float32), np.eye(4)), path)
        images[path] = name
    return file, images


@pytest.mark.parametrize("ordered", [True, False])
def test_which_file_is_which_channel_is_told_unless_the_user_said_so(pair, tmp_path, ordered):
    file, images = pair
    out = tmp_path / "job" / "result"
    out.mkdir()
    work = Work(job_id="1", model="pair", name="P", files=images, out=out, ordered=ordered)
    told = Segmenter({"pair": file})(work, lambda *_: None)
    said = [flag for flag in told["flags"] if flag.startswith("Files were taken")]
    names = "a.nii.gz as channel 0, b.nii.gz as channel 1"
    assert said == (
        [] if ordered else [f"Files were taken for channels in the order of their names: {names}."]
    )
    first = next(
        path for path, name in images.items() if name == ("b" if ordered else "a") + ".nii.gz"
    )
    shown = read_volume(out / "scan.nii.gz")
    assert np.array_equal(shown.array[0], read_volume(first).array[0])


def test_errors_do_not_tell_where_models_lie(pair, tmp_path):
    file, images = pair
    segmenter = Segmenter({"pair": file})
    file.unlink()
    out = tmp_path / "job" / "result"
    with pytest.raises(LaminaError, match="pair: ") as raised:
        segmenter(Work(job_id="1", model="pair", name="P", files=images, out=out), print)
    assert str(tmp_path) not in str(raised.value)


def test_the_models_that_come_along_can_be_served():
    _, told = find_models(FOLDER)["hippocampus"]
    assert told.labels


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", "dicom"])
def test_a_scan_that_claims_more_than_is_granted_is_refused_unread(
    models, tmp_path, monkeypatch, suffix
):
    folder, out = tmp_path / "upload", tmp_path / "result"
    for each in (folder, out):
        each.mkdir()
    if suffix == "dicom":
        from dicom_scans import write_series

        write_series(folder, size=(512, 512, 4))
        files = {path: path.name for path in folder.iterdir()}
    else:
        path = folder / f"00000{suffix}"
        write_volume(Volume(np.zeros((1, 512, 512, 4), np.int16), np.eye(4)), path)
        files = {path: f"mine{suffix}"}
    segmenter = Segmenter({"volumes": models / "volumes.lamina"}, ram_bytes=1e12)
    segmenter._model("volumes")
    monkeypatch.setattr(Case, "read_image", lambda *_: pytest.fail("it was read"))
    size = 512 * 512 * 4 * 2  # bytes
    monkeypatch.setattr(job, "held", lambda: 1e12 - size + 1)
    work = Work(job_id="1", model="volumes", name="mine", files=files, out=out)
    said = (
        r"^mine.*: reading takes 0\.00 GB of memory; 1000\.00 GB are granted, and the program "
        r"holds 1000\.00 GB already\. Crop it"
    )
    with pytest.raises(ResourceError, match=said):
        segmenter(work, lambda *_: None)
    monkeypatch.setattr(job, "held", lambda: 2e12)
    with pytest.raises(ResourceError, match=r"holds 2000\.00 GB already\. Ask whoever"):
        segmenter(work, lambda *_: None)
