"""What a model was trained on, as ranges: wide where little was seen, and kept through JSON."""

import json

import pytest

from lamina.config import resolve
from lamina.data.fingerprint import CaseFacts, Fingerprint
from lamina.data.plan import Normalisation, Plan
from lamina.data.ranges import KEY, Ranges, ranges_of, training_ranges
from lamina.errors import ConfigError
from lamina.labels import LabelSet

LABELS = LabelSet(values={"liver": 1, "lesion": 2})


def plan(scheme="zscore"):
    return Plan(
        spatial_dims=3,
        channels=("CT",),
        labels=LABELS,
        orientation="RAS",
        target_spacing=(1.0,) * 3,
        normalisation=(Normalisation(scheme=scheme, low=-100, high=100),),
        network="lightmedseg",
        patch_size=(16,) * 3,
        roi_size=(16,) * 3,
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )


def fingerprint(volumes, lesions=None, spacing=(1.0, 1.0, 2.0)):
    lesions = lesions or [0] * len(volumes)
    level = {"min": -50.0, "p00_5": -40.0, "median": 0.0, "mean": 10.0, "std": 20.0}
    cases = tuple(
        CaseFacts(
            case_id=f"case {number}",
            shape=(100, 90, 40),
            spacing=spacing,
            orientation="LPS",
            intensity=(level | {"p99_5": 50.0, "max": 90.0},),
            voxels={"liver": volume, "lesion": lesion},
            oddities=(),
        )
        for number, (volume, lesion) in enumerate(zip(volumes, lesions, strict=True))
    )
    return Fingerprint(
        spatial_dims=3,
        orientation="RAS",
        channels=("CT",),
        cases=cases,
        foreground_intensity=({},),
    )


def names(count):
    return [f"case {number}" for number in range(count)]


def test_only_the_scans_that_are_trained_on_count():
    found = training_ranges(fingerprint([500, 600, 700, 9000]), plan(), names(3))
    assert found.cases == 3
    assert (found.size["liver"].low, found.size["liver"].high) == (1000, 1400)
    assert [extent.low for extent in found.extent] == [100, 90, 80]
    assert training_ranges(fingerprint([500]), plan(), ["another"]) is None


def test_what_never_varies_may_vary_by_a_tenth():
    found = training_ranges(fingerprint([500] * 5), plan(), names(5))
    assert found.spacing[2].holds(2.19)
    assert not found.spacing[2].holds(2.21)
    assert not found.spacing[2].holds(1.8)


def test_few_scans_say_little_and_many_say_more():
    few = training_ranges(fingerprint([500, 600, 700]), plan(), names(3)).size["liver"]
    many = [500, 600, 700] * 10
    more = training_ranges(fingerprint(many), plan(), names(30)).size["liver"]
    assert few.least < more.least < more.low
    assert more.high < more.most < few.most
    assert not more.holds(300)


def test_a_structure_that_some_lack_is_measured_where_it_is():
    found = training_ranges(fingerprint([500] * 3, [0, 10, 20]), plan(), names(3))
    assert found.absent == {"liver": 0, "lesion": 1}
    assert found.size["lesion"].low == 20
    none = training_ranges(fingerprint([500] * 3), plan(), names(3))
    assert "lesion" not in none.size


@pytest.mark.parametrize(("scheme", "median"), [("ct", 0.0), ("zscore", -0.5)])
def test_intensities_are_as_the_network_is_concerned_by_them(scheme, median):
    found = training_ranges(fingerprint([500] * 3), plan(scheme), names(3))
    assert found.intensity[0]["median"].low == median


def test_a_bundle_keeps_them_and_an_ensemble_joins_its_members():
    one, other = (
        training_ranges(fingerprint(sizes, [5, 5, lesion]), plan(), names(3))
        for sizes, lesion in (([500] * 3, 5), ([800] * 3, 0))
    )
    kept = json.loads(json.dumps({KEY: one.as_dict()}))
    assert ranges_of(kept, plan()) == one == resolve(Ranges, one.as_dict())
    joined = ranges_of({"members": {"a": kept, "b": {KEY: other.as_dict()}}}, plan())
    assert (joined.size["liver"].low, joined.size["liver"].high) == (1000, 1600)
    assert joined.absent["lesion"] == 1
    assert ranges_of({"members": {"a": kept, "b": {}}}, plan()) is None
    assert ranges_of({}, plan()) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept.update(spacing=kept["spacing"][:2]),
        lambda kept: kept.update(intensity=kept["intensity"] * 2),
        lambda kept: kept["intensity"][0].pop("median"),
        lambda kept: kept.update(size=3),
    ],
)
def test_ranges_of_other_scans_are_refused(damage):
    kept = json.loads(json.dumps(training_ranges(fingerprint([500]), plan(), names(1)).as_dict()))
    damage(kept)
    with pytest.raises(ConfigError):
        ranges_of({KEY: kept}, plan())
