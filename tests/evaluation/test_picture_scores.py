"""Folders of pictures are scored in pixels, and never together with scans in millimetres."""

import numpy as np
import pytest

from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.volume import Volume
from lamina.workflows.evaluate import evaluate

LP = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def folders(tmp_path):
    """Two pictures, each segmented two pixels too wide."""
    label = np.zeros((1, 24, 20), np.uint8)
    label[0, 5:15, 5:15] = 1
    wide = label.copy()
    wide[0, 15:17, 5:15] = 1
    for name in ("a", "b"):
        write_volume(Volume(label, LP, unit="px"), tmp_path / "masks" / f"{name}.png")
        write_volume(Volume(wide, LP, unit="px"), tmp_path / "found" / f"{name}.png")
    return tmp_path / "found", tmp_path / "masks"


def test_pictures_are_scored_in_pixels(folders):
    scores = evaluate(*folders)
    assert (scores.unit, scores.failures) == ("px", {})
    summary = scores.summary()["label_1"]
    assert summary["volume_error_px"].mean == 20
    assert summary["hd95_px"].mean == 2
    assert summary.keys().isdisjoint({"hd95", "nsd", "volume_error_ml"})


def test_a_scan_among_pictures_fails_by_itself(folders):
    for folder in folders:
        scan = Volume(np.ones((1, 6, 6), np.uint8), affine_from((1, 1)))
        write_volume(scan, folder / "z.nii.gz")
    scores = evaluate(*folders)
    assert scores.cases == ("a", "b")
    assert "in mm" in scores.failures["z"]


def test_a_prediction_in_mm_is_not_held_against_a_reference_in_pixels(folders):
    found, masks = folders
    (found / "a.png").unlink()
    write_volume(Volume(np.ones((1, 24, 20), np.uint8), LP), found / "a.nii.gz")
    scores = evaluate(found, masks)
    assert scores.cases == ("b",)
    assert "measured in mm, its reference in px" in scores.failures["a"]
