"""What ``lamina evaluate`` shows and keeps, as its options ask."""

import csv
import json

import numpy as np
import pytest

from lamina.evaluation.metrics import METRICS
from lamina.io import write_volume
from lamina.volume import Volume


@pytest.fixture
def command(cli, tmp_path):
    """Evaluate one case with a missed spleen, by the options given."""
    reference = np.zeros((1, 8, 7, 6), np.uint8)
    reference[0, 1:5, 1:5, 1:4], reference[0, 6, 5, 3] = 1, 2
    prediction = np.where(reference == 2, 0, reference).astype(np.uint8)
    for folder, array in (("p", prediction), ("r", reference)):
        write_volume(Volume(array, np.diag([1.0, 2.0, 2.5, 1.0])), tmp_path / folder / "a.nii.gz")
    given = ["-p", tmp_path / "p", "-r", tmp_path / "r", "--out", tmp_path / "out"]
    return lambda *options: cli("evaluate", *given, *options)


def kept(tmp_path):
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8") as stream:
        return set(csv.DictReader(stream).fieldnames) - {"case", "label", "rule"}


def test_shows_few_metrics_and_keeps_all(command, tmp_path):
    shown = command().stdout
    assert "HD95" in shown
    assert "ASSD" not in shown
    of_masks = {name for name in METRICS if not METRICS.get(name).needs_probability}
    assert kept(tmp_path) == of_masks


def test_all_shows_what_is_kept(command, tmp_path):
    every = command("--metrics", "all").stdout
    assert all(word in every for word in ("Dice", "ASSD", "MCC", "Lesion F1", "Specificity"))
    assert "if found" in every
    assert kept(tmp_path) == {name for name in METRICS if not METRICS.get(name).needs_probability}


@pytest.mark.parametrize(
    "options",
    [
        ["--metrics", "dice,assd"],
        ["--metrics", "dice, assd"],
        ["--metric", "dice", "--metric", "assd"],
    ],
)
def test_named_metrics_are_shown_and_kept_alone(command, tmp_path, options):
    shown = command(*options).stdout
    assert "ASSD" in shown
    assert "HD95" not in shown
    assert kept(tmp_path) == {"dice", "assd"}


def test_a_protocol_is_labelled_wherever_its_numbers_stand(command, tmp_path):
    done = command("--protocol", "transunet")
    assert "MEASURED AS TransUNet" in done.stdout
    data = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    assert data["protocol"] == "transunet"
    assert kept(tmp_path) == {"transunet_dice", "transunet_hd95"}
    # A perfect organ and a missed one: the distance of the latter is 0, which is the quirk.
    assert data["mean_foreground"] == {"transunet_dice": 0.5, "transunet_hd95": 0}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--protocol", "transnet"], "Unknown protocol 'transnet'"),
        (["--protocol", "mpunet", "--metrics", "dice"], "does not measure it"),
        (["--metrics", "dise"], "Unknown metric 'dise'"),
        (["--metrics", "all,dise"], "--metrics all,dise: all must stand alone"),
    ],
)
def test_what_is_unknown_is_refused_before_anything_is_written(command, tmp_path, options, fault):
    done = command(*options)
    assert done.exit_code == 2
    assert fault in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_calibration_takes_the_folder_of_probabilities(command, tmp_path):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a_probabilities.npy", np.full((3, 8, 7, 6), 1 / 3, np.float32))
    command("--metrics", "ece,brier", "--probabilities", tmp_path / "maps")
    data = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    assert data["failures"] == {}
    found = {(row["label"], row["metric"]): row["value"] for row in data["rows"]}
    # Around the 48 voxels of the first, within 3 voxels of their box, lies the whole grid.
    assert found["label_1", "ece"] == pytest.approx(1 / 3 - 48 / (8 * 7 * 6))
    assert found["label_2", "ece"] == 1, "a missed structure takes the worst value"
