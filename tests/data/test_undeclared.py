"""Channels and labels that nobody declared are those of most files, or refused with a reason."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data.case import Case
from lamina.data.doctor.reading import read_label_map
from lamina.data.layouts import read_cohort
from lamina.data.layouts.undeclared import found_labels, guess_channels
from lamina.errors import DatasetError, LabelError
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.volume import Volume
from lamina.workflows.doctor import doctor


def pictures(folder: Path, images: list[np.ndarray], masks: list[np.ndarray], suffix=".png"):
    for kind, arrays in (("images", images), ("masks", masks)):
        (folder / kind).mkdir(parents=True)
        for number, array in enumerate(arrays):
            end = suffix if kind == "masks" else ".png"
            Image.fromarray(array).save(folder / kind / f"a{number:02d}{end}")
    return folder


def grey(value=90):
    return np.full((6, 8), value, np.uint8)


def colour(value=90):
    return np.full((6, 8, 3), (value, 0, 0), np.uint8)


def mask(value=255):
    array = np.zeros((6, 8), np.uint8)
    array[2:4, 3:6] = value
    return array


def volumes(folder: Path, maps: list[np.ndarray]) -> list[Case]:
    cases = []
    for number, array in enumerate(maps):
        path = folder / f"{number}.nii"
        write_volume(Volume(array[None], affine_from((1, 1, 1))), path)
        cases.append(Case(case_id=f"{number}", group=f"{number}", images=(path,), label=path))
    return cases


@pytest.mark.parametrize("first", [0, 20])
def test_the_channels_are_those_that_most_pictures_have(tmp_path, first):
    images = [grey()] * first + [grey(), *[colour()] * 7, *[colour()] * (2 * first)]
    folder = pictures(tmp_path / "Set", images, [mask()] * len(images))
    assert read_cohort(folder).channels == ("red", "green", "blue")


def test_scans_that_cannot_be_read_have_no_vote(tmp_path):
    folder = pictures(tmp_path / "Set", [colour()] * 40, [mask()] * 40)
    files = sorted((folder / "images").iterdir())
    for path in files[:39]:
        path.write_bytes(b"damaged")
    assert read_cohort(folder).channels == ("red", "green", "blue")
    files[39].write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="none of 40 scans can be read") as caught:
        read_cohort(folder)
    assert caught.value.remedy


def test_masks_resized_with_interpolation_are_refused_unless_declared(tmp_path):
    blurred = [np.linspace(start, 255, 48).astype(np.uint8).reshape(6, 8) for start in (0, 3)]
    folder = pictures(tmp_path / "Set", [grey()] * 2, blurred)
    with pytest.raises(LabelError, match=r"masks/a0\d\.png: .* between 0 and 255") as caught:
        read_cohort(folder)
    assert "Threshold" in caught.value.remedy
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "lesion": 255}}')
    assert dict(read_cohort(folder).labels.values) == {"lesion": 255}


def test_volumes_may_hold_many_structures(tmp_path):
    cases = volumes(tmp_path, [np.arange(105, dtype=np.uint8).reshape(5, 7, 3)])
    labels, odd = found_labels(cases)
    assert (len(labels.values), odd) == (104, ())


def test_where_no_label_can_be_used_the_first_fault_is_told(tmp_path):
    folder = pictures(tmp_path / "Set", [grey()] * 3, [colour(), mask(0), colour()])
    with pytest.raises(LabelError, match=r"2 of 3 labels .*a00\.png: holds 3 channels") as caught:
        read_cohort(folder, partial=True)
    assert "Merge" in caught.value.remedy
    floats = volumes(tmp_path, [np.full((2, 3, 4), 0.8, np.float32)])
    with pytest.raises(LabelError, match=r"1 of 1 labels .*0\.nii: .*no whole numbers: 0\.8"):
        found_labels(floats)


def test_empty_labels_are_told_to_be_empty(tmp_path):
    folder = pictures(tmp_path / "Set", [grey()] * 2, [mask(0)] * 2)
    with pytest.raises(LabelError, match=r"masks: all labels are 0 everywhere: 2 files"):
        read_cohort(folder)


def test_one_usable_label_is_enough(tmp_path):
    folder = pictures(tmp_path / "Set", [grey()] * 3, [colour(), mask(7), colour()])
    assert dict(read_cohort(folder).labels.values) == {"label_7": 7}


def test_doubts_of_the_readers_are_left_to_who_examines_the_files(tmp_path, caplog):
    folder = pictures(tmp_path / "Set", [grey()] * 3, [mask()] * 3, ".jpg")
    with caplog.at_level(logging.WARNING, "lamina"):
        cohort = read_cohort(folder)
        assert caplog.text == ""
        read_label_map(cohort.cases[0], cohort.labels)
    assert "stored as JPEG" in caplog.text


def test_guesses_do_not_depend_on_where_few_odd_ones_stand(tmp_path):
    cases = volumes(tmp_path, [np.ones((2, 3, 4), np.uint8)] * 4)
    write_volume(Volume(np.ones((2, 2, 3, 4)), affine_from((1, 1, 1))), cases[0].images[0])
    assert guess_channels(cases) == guess_channels(cases[::-1]) == ("channel_0",)


def test_few_resized_masks_are_refused_and_leave_the_doctor_at_work(tmp_path):
    blurred = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    folder = pictures(tmp_path / "Set", [grey()] * 5, [mask(0), blurred, mask(), mask(), mask(0)])
    with pytest.raises(LabelError, match=r"masks of many values.*: masks/a01\.png\.") as caught:
        read_cohort(folder)
    assert "nearest neighbour" in caught.value.remedy
    result = doctor(folder, workers=0)
    assert dict(result.cohort.labels.values) == {"label_255": 255}
    wrong = [f for f in result.findings if f.check == "values" and f.severity == "error"]
    assert [(f.case, f.message[:17]) for f in wrong] == [("a01", "undeclared values")]


def test_sound_masks_with_a_structure_more_stay_as_they_are(tmp_path):
    blurred = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    masks = [mask(0)] * 3 + [blurred // 100] * 2 + [blurred]
    folder = pictures(tmp_path / "Set", [grey()] * 6, masks)
    with pytest.raises(LabelError, match=r"declared any: masks/a05\.png\."):
        read_cohort(folder)
    assert set(doctor(folder, workers=0).cohort.labels.values.values()) == {1, 2}
