"""What the masks of a set of pictures show together: palettes, several masks, colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data.doctor.diagnosis import diagnose
from lamina.data.doctor.examine import examine
from lamina.data.layouts import read_cohort

INSIDE = np.zeros((20, 24), bool)
INSIDE[5:12, 6:15] = True
BLACK, RED = (0, 0, 0), (128, 0, 0)


def image(folder: Path, name: str) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    noise = rng.integers(0, 255, (20, 24)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "images" / f"{name}.png")


def indexed(path: Path, inside: np.ndarray, *palette: tuple[int, ...]) -> None:
    mask = Image.fromarray(inside.astype(np.uint8))
    mask.putpalette([value for colour in palette for value in colour])
    mask.save(path)


def found(folder: Path):
    cohort = read_cohort(folder)
    return [
        (finding.severity, finding.case, finding.message, finding.remedy)
        for finding in diagnose(cohort, [examine(case) for case in cohort.cases])
        if finding.check == "values"
    ]


def test_palettes_in_two_orders_are_an_error(tmp_path):
    for number in range(4):
        image(tmp_path, f"a{number}")
        order = (BLACK, RED) if number else (RED, BLACK)
        inside = INSIDE if number else ~INSIDE
        indexed(tmp_path / "masks" / f"a{number}.png", inside, *order)
    ((severity, case, message, _),) = found(tmp_path)
    assert (severity, case) == ("error", "")
    assert "#800000, for one, is 0 in 1 masks (a0), 1 in 3 masks (a1)" in message


def test_a_label_shown_in_two_colours_is_to_be_looked_at(tmp_path):
    for number in range(4):
        image(tmp_path, f"a{number}")
        colour = RED if number % 2 else (255, 255, 255)
        indexed(tmp_path / "masks" / f"a{number}.png", INSIDE, BLACK, colour)
    ((severity, _, message, _),) = found(tmp_path)
    assert severity == "warning"
    assert "label 1 in 2 colours: #800000 in 2 masks (a1), #ffffff in 2 masks (a0)" in message


def test_entries_of_a_palette_that_no_pixel_has_do_not_matter(tmp_path):
    for number in range(3):
        image(tmp_path, f"a{number}")
        unused = (0, number, 99)
        indexed(tmp_path / "masks" / f"a{number}.png", INSIDE, BLACK, RED, unused)
    assert found(tmp_path) == []


def test_several_masks_of_a_picture_are_noted_as_merged(tmp_path):
    for number in range(3):
        image(tmp_path, f"a{number}")
        for part in ("mask_1", "mask_2")[: 1 + (number > 0)]:
            mask = Image.fromarray(INSIDE.astype(np.uint8))
            mask.save(tmp_path / "masks" / f"a{number}_{part}.png")
    ((severity, _, message, remedy),) = found(tmp_path)
    assert severity == "note"
    assert "masks of 2 pictures were merged" in message
    assert "(a1, a2)" in message
    assert "a value for each" in remedy


def test_masks_in_colour_are_no_masks_of_255(tmp_path):
    for number in range(5):
        image(tmp_path, f"a{number}")
        grey = np.where(INSIDE, 255, 0).astype(np.uint8)
        red = np.stack([grey, 0 * grey, 0 * grey], axis=-1)
        array = grey if number else red
        Image.fromarray(array).save(tmp_path / "masks" / f"a{number}.png")
    messages = {severity: message for severity, _, message, _ in found(tmp_path)}
    assert messages == {
        "error": "has 3 channels; a label map has one.",
        "note": "4 masks are of 0 and 255.",
    }


def test_a_mask_stored_as_jpeg_has_a_remedy_of_its_own(tmp_path):
    image(tmp_path, "a")
    Image.fromarray(np.where(INSIDE, 255, 0).astype(np.uint8)).save(tmp_path / "masks" / "a.jpg")
    remedies = [remedy for severity, _, _, remedy in found(tmp_path) if severity == "warning"]
    assert remedies == ["Threshold the mask and save it as PNG."]


@pytest.mark.parametrize(("odd", "told"), [("L", "has 1 channel;"), ("RGB", "has 3 channels;")])
def test_channels_are_held_against_those_of_most_pictures(tmp_path, odd, told):
    usual = {"L": "RGB", "RGB": "L"}[odd]
    for number in range(5):
        image(tmp_path, f"a{number}")
        Image.fromarray(INSIDE.astype(np.uint8)).save(tmp_path / "masks" / f"a{number}.png")
        path = tmp_path / "images" / f"a{number}.png"
        with Image.open(path) as stored:
            converted = stored.convert(usual if number else odd)
        converted.putpixel((0, 0), 9 if converted.mode == "L" else (9, 8, 7))
        converted.save(path)
    cohort = read_cohort(tmp_path)
    findings = diagnose(cohort, [examine(case) for case in cohort.cases])
    ((case, message),) = [(f.case, f.message) for f in findings if f.check == "channels"]
    assert case == "a0"
    assert message.startswith(told)
    assert "most have" in message
