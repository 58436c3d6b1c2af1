"""From a DICOM series to a DICOM object: what predict writes, and what it refuses to write."""

import logging
import shutil

import numpy as np
import pytest

from dicom_scans import OBLIQUE, PATIENT, save, write_enhanced, write_series
from lamina.errors import ConfigError
from lamina.files import read_json, sha256
from lamina.folders.model import load
from lamina.io import read_labels, read_volume
from lamina.io.structures import describe, read_structures
from lamina.workflows.predict import predict

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")


@pytest.fixture(scope="module")
def series(tmp_path_factory, tiny_run):
    """An oblique series with the bright balls that the tiny run has learnt to find."""
    folder = tmp_path_factory.mktemp("hospital") / "series"
    slices = write_series(folder, OBLIQUE, size=(32, 32, 16), PixelSpacing=[1, 1])
    label = load(tiny_run).bundle.plan.labels
    assert label.values == {"large": 3, "small": 7}
    grid = np.indices((16, 32, 32)).astype(float)
    for number, one in enumerate(slices):
        far = [(grid[0] - 8) * 2.5, grid[1] - 14, grid[2] - 12]
        bright = 1000 * (np.linalg.norm(far, axis=0) < 8)
        noise = np.frombuffer(one.PixelData, "<i2").reshape(32, 32)
        one.PixelData = (noise + bright[number]).astype("<i2").tobytes()
        save(one, folder / f"IM{(7 * number) % 16:04d}")
    return folder, slices


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (None, "series.nii.gz"),
        ("nifti", "series.nii.gz"),
        ("seg", "series.seg.dcm"),
        ("labelmap", "series.seg.dcm"),
        ("rtstruct", "series.rtstruct.dcm"),
    ],
)
def test_a_series_becomes_what_is_asked_for(series, tiny_run, tmp_path, form, name):
    folder, _ = series
    plain = predict(tiny_run, folder, out=tmp_path / "plain")
    expected = read_labels(tmp_path / "plain" / plain.outcomes[0].segmentation).array[0]
    assert (expected > 0).any()
    result = predict(tiny_run, folder, out=tmp_path / "out", output_format=form)
    assert not result.failures
    assert names(tmp_path / "out") == ["prediction.json", name]
    (case,) = read_json(tmp_path / "out" / "prediction.json")["cases"]
    assert (case["segmentation"], case["sha256"]) == (name, sha256(tmp_path / "out" / name))
    if name.endswith(".dcm"):
        found = np.zeros_like(expected)
        for structure, mask in read_structures(tmp_path / "out" / name, read_volume(folder)):
            found[mask] = {"large": 3, "small": 7}[structure]
        np.testing.assert_array_equal(found, expected)


def test_the_object_names_its_model_and_its_series(series, tiny_run, tmp_path):
    folder, slices = series
    predict(tiny_run, folder, out=tmp_path, output_format="seg")
    found = pydicom.dcmread(tmp_path / "series.seg.dcm")
    assert describe(found, tmp_path).series == (slices[0].SeriesInstanceUID,)
    algorithm = found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert sha256(tiny_run / "model.lamina") in algorithm.AlgorithmParameters
    assert found.PatientID == PATIENT["PatientID"]


def test_a_folder_of_one_slice_without_a_suffix_is_a_series(tiny_run, tmp_path):
    write_series(tmp_path / "slice", size=(32, 32, 1))
    result = predict(tiny_run, tmp_path / "slice", out=tmp_path / "out")
    assert not result.failures
    assert names(tmp_path / "out") == ["prediction.json", "slice.nii.gz"]


def test_a_file_of_many_frames_is_a_series_too(series, tiny_run, tmp_path):
    _, slices = series
    write_enhanced(tmp_path / "scan.dcm", slices)
    result = predict(
        tiny_run, tmp_path / "scan.dcm", out=tmp_path / "out", output_format="rtstruct"
    )
    assert not result.failures
    assert "scan.rtstruct.dcm" in names(tmp_path / "out")


@pytest.mark.parametrize("form", ["seg", "rtstruct"])
def test_anonymised_objects_and_logs_do_not_tell_the_patient(
    series, tiny_run, tmp_path, form, caplog
):
    caplog.set_level(logging.DEBUG)
    folder, _ = series
    predict(tiny_run, folder, out=tmp_path, output_format=form, anonymise=True)
    content = (tmp_path / f"series.{form}.dcm").read_bytes()
    record = (tmp_path / "prediction.json").read_text()
    for secret in PATIENT.values():
        assert secret.encode() not in content
        assert secret not in record + caplog.text


def test_scans_of_other_formats_are_refused_one_by_one(tiny_dataset, tiny_run, tmp_path):
    scan = tiny_dataset / "imagesTr" / "ball_000.nii.gz"
    result = predict(tiny_run, scan, out=tmp_path, output_format="seg")
    assert result.failures["ball_000"].startswith(f"{scan}: is no DICOM image.")
    assert names(tmp_path) == ["prediction.json"]


def test_an_unknown_format_is_refused_before_anything_is_done(series, tiny_run, tmp_path):
    with pytest.raises(ConfigError, match="format 'dicom' is unknown"):
        predict(tiny_run, series[0], out=tmp_path / "out", output_format="dicom")
    assert not (tmp_path / "out").exists()


def test_a_run_again_replaces_its_own_object(series, tiny_run, tmp_path):
    for _ in range(2):
        result = predict(tiny_run, series[0], out=tmp_path, output_format="seg")
        assert not result.failures
    assert names(tmp_path) == ["prediction.json", "series.seg.dcm"]


def test_series_in_folders_of_their_own_are_done_and_a_broken_one_is_listed(
    series, tiny_run, tmp_path
):
    scans = tmp_path / "pulled"
    scans.mkdir()
    (scans / "1.2.3").symlink_to(series[0])
    (scans / "1.2.4").mkdir()
    (scans / "1.2.4" / "IM0000").write_bytes(b"nothing")
    result = predict(tiny_run, scans, out=tmp_path / "out")
    assert result.failures.keys() == {"1.2.4"}
    assert names(tmp_path / "out") == ["1.2.3.nii.gz", "prediction.json"]


@pytest.mark.parametrize("place", [0, 5, 15])
def test_a_slice_that_is_cut_within_its_header_is_not_left_out(series, tiny_run, tmp_path, place):
    folder = shutil.copytree(series[0], tmp_path / "series")
    cut = sorted(folder.iterdir())[place]
    content = cut.read_bytes()
    for end in (content.index(b"\x28\x00\x10\x00"), content.index(b"\x10\x00\x10\x00"), 600, 140):
        cut.write_bytes(content[:end])
        (fault,) = predict(tiny_run, folder, out=tmp_path / "out").failures.values()
        assert cut.name in fault
        assert "not copied completely" in fault


def test_a_series_may_be_segmented_into_its_own_folder(series, tiny_run, tmp_path):
    folder = shutil.copytree(series[0], tmp_path / "series")
    (outcome,) = predict(tiny_run, folder, out=folder).outcomes
    assert (folder / outcome.segmentation).is_file()


def test_a_damaged_file_is_listed_and_the_scans_beside_it_are_done(series, tiny_run, tmp_path):
    scans = tmp_path / "enhanced"
    scans.mkdir()
    for number, name in enumerate("abc"):
        one = write_enhanced(scans / f"{name}.dcm", series[1])
        one.SeriesInstanceUID = f"2.25.{number}"
        save(one, scans / f"{name}.dcm")
    shutil.copytree(series[0], scans / "1.2.3")
    (scans / "b.dcm").write_bytes((scans / "b.dcm").read_bytes()[:600])
    result = predict(tiny_run, scans, out=tmp_path / "out")
    assert [outcome.case_id for outcome in result.outcomes] == ["a", "b", "c", "1.2.3"]
    assert result.failures.keys() == {"b"}


def test_a_series_beside_the_file_it_was_turned_into_is_left_out(
    series, tiny_run, tiny_dataset, tmp_path, caplog
):
    scans = tmp_path / "both"
    shutil.copytree(series[0], scans / "ball_000")
    shutil.copy(tiny_dataset / "imagesTr" / "ball_000.nii.gz", scans)
    (outcome,) = predict(tiny_run, scans, out=tmp_path / "out").outcomes
    assert outcome.image.endswith("ball_000.nii.gz")
    assert "left out beside the file of that name" in caplog.text


def test_a_series_among_others_may_be_segmented_into_its_own_folder(series, tiny_run, tmp_path):
    for name in ("1.2.3", "1.2.4"):
        shutil.copytree(series[0], tmp_path / name)
    result = predict(tiny_run, tmp_path, out=tmp_path / "1.2.3")
    assert [outcome.case_id for outcome in result.outcomes] == ["1.2.3", "1.2.4"]
    assert not result.failures


def test_series_beside_files_are_done_too_and_what_was_made_of_them_is_not(
    series, tiny_run, tiny_dataset, tmp_path
):
    scans = tmp_path / "mixed"
    shutil.copytree(series[0], scans / "1.2.3")
    shutil.copy(tiny_dataset / "imagesTr" / "ball_000.nii.gz", scans)
    for _ in range(2):
        result = predict(tiny_run, scans, out=scans / "out", output_format="seg")
        assert sorted(outcome.case_id for outcome in result.outcomes) == ["1.2.3", "ball_000"]
        assert result.failures.keys() == {"ball_000"}  # no object of DICOM is made of it


def test_an_enhanced_series_alone_in_its_folder_is_done(series, tiny_run, tmp_path):
    folder = tmp_path / "pulled" / "1.2.5"
    folder.mkdir(parents=True)
    write_enhanced(folder / "1.2.5.1.dcm", series[1])
    assert not predict(tiny_run, tmp_path / "pulled", out=tmp_path / "out").failures
    assert names(tmp_path / "out") == ["1.2.5.nii.gz", "prediction.json"]
