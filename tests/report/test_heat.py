"""The sheet of maps: every map has its row, and colours show where it is high."""

import numpy as np
import pytest
from PIL import Image

from lamina.geometry import affine_from
from lamina.labels import LabelSet
from lamina.volume import Volume

pytest.importorskip("matplotlib")

from lamina.report import heat
from lamina.report.heat import Heat, save_heat

LABELS = LabelSet(values={"left": 3, "right": 7})
SHAPE = (20, 24, 12)


def scene():
    image = np.random.default_rng(0).normal(100, 5, (1, *SHAPE)).astype(np.float32)
    label = np.zeros((1, *SHAPE), np.uint8)
    label[0, 2:8, 8:16, 4:8], label[0, 12:18, 8:16, 4:8] = 3, 7
    affine = affine_from((1, 1, 2))
    return Volume(image, affine), Volume(label, affine)


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float32)


def test_a_map_is_seen_in_its_own_row_alone(tmp_path):
    image, label = scene()
    empty = np.zeros(SHAPE, np.float32)
    dim, bright, flat = empty.copy(), empty + 1, empty + 1
    dim[0, 0, 0], bright[0, 0, 0] = 1, 0
    heats = [
        Heat(name="nothing", array=dim, high=1.0, structures=("left",)),
        Heat(name="the same everywhere", array=flat, high=1.0),
        Heat(name="everything", array=bright, high=1.0, structures=("right",)),
    ]
    assert [heat.is_flat for heat in heats] == [False, True, False]
    save_heat(tmp_path / "sheet.png", image, label, LABELS, heats, title="A <case>")
    pixels = pixels_of(tmp_path / "sheet.png")
    warm = (pixels[..., 0] - pixels[..., 2]).clip(0).sum(axis=1)  # redder than blue
    thirds = np.array([part.sum() for part in np.array_split(warm[len(warm) // 12 :], 3)])
    assert thirds[2] > 5 * thirds[:2].max()


def test_no_more_rows_are_drawn_than_one_can_look_at(tmp_path, monkeypatch):
    monkeypatch.setattr(heat, "MOST_ROWS", 1)
    image, label = scene()
    heats = [
        Heat(name=f"decoder.0.gate path {number}", array=image.array[0] / 200, high=1.0)
        for number in range(3)
    ]
    save_heat(tmp_path / "many.png", image, label, LABELS, heats)
    save_heat(tmp_path / "most.png", image, label, LABELS, heats[:1])
    many, most = (pixels_of(tmp_path / name) for name in ("many.png", "most.png"))
    assert many.shape == most.shape
    assert (many != most).any()  # it says that there are more


def test_a_picture_has_one_column_and_nothing_found_is_said(tmp_path):
    flat = Volume(np.random.default_rng(0).random((3, 30, 40), np.float32), affine_from((1, 1)))
    label = Volume(np.zeros((1, 30, 40), np.uint8), flat.affine)
    entropy = Heat(name="entropy", array=flat.array[0], high=1.0)
    save_heat(tmp_path / "flat.png", flat, label, LABELS, [entropy])
    height, width, _ = pixels_of(tmp_path / "flat.png").shape
    assert height > width / 2
