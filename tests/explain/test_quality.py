"""Flags: what lies outside of the training is named with its value and its range, nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from lamina.data.plan import Normalisation, Plan
from lamina.data.ranges import Range, Ranges
from lamina.explain.quality import flags, sizes, unit_of
from lamina.geometry import affine_along, affine_from
from lamina.labels import LabelSet
from lamina.volume import Volume

LABELS = LabelSet(values={"liver": 3, "lesion": 7})
PLAN = Plan(
    spatial_dims=3,
    channels=("CT",),
    labels=LABELS,
    orientation="RAS",
    target_spacing=(1.0,) * 3,
    normalisation=(Normalisation(scheme="ct", low=-100, high=100),),
    network="lightmedseg",
    patch_size=(16,) * 3,
    roi_size=(16,) * 3,
    batch_size=1,
    mirror_axes=(),
    epochs=1,
    steps_per_epoch=1,
)


def span(low, high, room=0.0):
    return Range(low=low, high=high, least=low - room, most=high + room)


RANGES = Ranges(
    cases=12,
    unit="mm",
    spacing=(span(0.9, 1.1), span(0.9, 1.1), span(1.5, 2.5)),
    extent=(span(15, 25), span(15, 25), span(20, 60)),
    intensity=({"p00_5": span(-60, 0), "median": span(-20, 20), "p99_5": span(0, 60)},),
    size={"liver": span(100, 2000, 50), "lesion": span(1, 90)},
    absent={"liver": 0, "lesion": 4},
)


def scan(shape=(20, 18, 16), spacing=(1, 1, 2), level=0.0):
    noise = np.random.default_rng(0).normal(level, 10, (1, *shape)).astype(np.float32)
    return Volume(noise, affine_from(spacing))


def segmented(image, liver=300, lesion=0):
    array = np.zeros(image.spatial_shape, np.uint8)
    array.ravel()[:liver] = 3
    array.ravel()[liver : liver + lesion] = 7
    return replace(image, array=array[None])


def found(image, **amounts):
    return {(f.kind, f.subject): f for f in flags(image, segmented(image, **amounts), PLAN, RANGES)}


def test_a_scan_like_those_of_training_has_no_flag():
    image = scan()
    assert found(image) == {}
    assert found(image, liver=30) == {}  # 60 mm³: seen from 100 on, expected from 50


def test_voxels_and_extent_are_compared_along_the_bodys_axes():
    thick = found(scan((20, 18, 16), (1, 1, 5)))
    assert thick.keys() == {("spacing", "from head to foot"), ("extent", "from head to foot")}
    flag = thick["spacing", "from head to foot"]
    assert (flag.value, flag.low, flag.high) == (5, 1.5, 2.5)
    assert flag.text == "Voxels are 5 mm from head to foot; in training they were 1.5 to 2.5."
    turned = Volume(
        scan((16, 20, 18)).array, affine_along("SLP", (5, 1, 1)), "turned"
    )  # the first axis runs to the head
    assert found(turned).keys() == thick.keys()


def test_images_have_no_body_and_pictures_can_be_resized():
    plan = replace(
        PLAN,
        spatial_dims=2,
        orientation="LP",
        **dict.fromkeys(("target_spacing", "patch_size", "roi_size"), (16, 16)),
    )
    known = replace(RANGES, spacing=RANGES.spacing[:2], extent=RANGES.extent[:2])
    wide = Volume(scan((40, 18, 16)).array[:, :, :, 0], affine_along("LP", (1, 1)), unit="px")
    for unit, more in (("px", " Resize it to about that first."), ("mm", "")):
        image = replace(wide, unit=unit)
        (flag,) = flags(image, None, plan, replace(known, unit=unit))
        assert flag.subject == "across"
        assert flag.text == f"The image shows 40 {unit} across; in training it was 15 to 25.{more}"


def test_levels_outside_of_training_are_flagged_by_channel():
    bright = found(scan(level=500))
    assert {kind for kind, _ in bright} == {"intensity"}
    told = flags(scan(level=500), None, PLAN, RANGES)
    assert [flag.subject for flag in told] == ["CT"] * 3
    assert told[1].text.startswith(
        "The middle grey levels of CT are 500; in training they were -20"
    )


def test_volumes_are_flagged_in_millilitres():
    flag = found(scan(), liver=1500)["volume", "liver"]
    assert flag.text == "liver: 3 ml were found; in training it had 0.1 to 2 ml."
    assert (flag.value, flag.low, flag.high) == pytest.approx((3.0, 0.1, 2.0))


def test_a_missing_structure_is_flagged_where_all_training_scans_have_it():
    lost = found(scan(), liver=0)
    assert lost.keys() == {("absent", "liver")}
    assert "all 12 of training have it" in lost["absent", "liver"].text


def test_views_that_disagree_are_flagged_whatever_the_model_knows():
    agreement = {"liver": 0.95, "lesion": 0.4}
    (flag,) = flags(scan(), None, PLAN, None, agreement)
    assert (flag.kind, flag.subject, flag.value, flag.high) == ("disagreement", "lesion", 0.4, None)
    assert "Dice of 0.40 only" in flag.text
    assert flag.as_dict()["text"] == flag.text


def test_voxels_that_are_no_numbers_do_not_hide_the_others():
    image = scan()
    image.array[0, 0] = np.nan
    assert flags(image, None, PLAN, RANGES) == ()


def test_sizes_are_in_ml_cm2_or_pixels():
    image = scan()
    assert sizes(segmented(image, 500), LABELS) == {"liver": pytest.approx(1.0), "lesion": 0}
    flat = Volume(np.full((1, 20, 30), 3, np.uint8), affine_from((1, 2)))
    assert sizes(flat, LABELS)["liver"] == pytest.approx(12.0)
    slanted = image.affine.copy()
    slanted[0, 2] = 1.5
    leaning = replace(segmented(image, 500), affine=slanted)
    assert sizes(leaning, LABELS)["liver"] == pytest.approx(1.0)
    picture = replace(flat, unit="px")
    assert sizes(picture, LABELS)["liver"] == 600
    assert [unit_of(each) for each in (image, flat, picture)] == ["ml", "cm²", "px"]
