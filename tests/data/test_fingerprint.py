"""The fingerprint says what the scans are, whatever the order their voxels are stored in."""

import json

import numpy as np
import pytest

from lamina.data.cohort import Cohort
from lamina.data.fingerprint import CaseFacts, Fingerprint, make_fingerprint, survey
from lamina.errors import DatasetError, GeometryError, LabelError
from lamina.geometry import affine_from
from lamina.labels import LabelSet

LABELS = LabelSet(values={"core": 2, "shell": 5}, regions={"all": ("core", "shell")}, ignore=9)
STORED_AS_PSR = np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])


@pytest.fixture
def look(tmp_path, write_case):
    def look(image, label, affine=None, channels=("MR",), labels=LABELS, case_id="case_1"):
        case = write_case(tmp_path, np.asarray(image), np.asarray(label), affine, case_id)
        return survey(case, channels, labels)

    return look


def volumes(size=(6, 5, 4)):
    """Noise with a core of 4 voxels at 100, a shell of 2 at 200 and 3 voxels of unknown kind."""
    image = np.random.default_rng(0).normal(0, 1, (1, *size)).astype(np.float32)
    label = np.zeros(size, np.uint8)
    label.flat[:9] = (2, 2, 2, 2, 5, 5, 9, 9, 9)
    image[0][label == 2], image[0][label == 5], image[0][label == 9] = 100, 200, 5000
    return image, label


def test_sizes_stand_in_canonical_order(look):
    facts = look(*volumes(), STORED_AS_PSR).facts
    assert facts.orientation == "PSR"
    assert facts.shape == (4, 6, 5)
    assert facts.spacing == pytest.approx((3, 1, 2))


def test_structures_and_intensities_are_counted(look):
    image, label = volumes()
    found = look(image, label)
    assert found.facts.voxels == {"core": 4, "shell": 2, "all": 6}
    assert found.facts.oddities == ()
    assert sorted(found.foreground[0]) == [100] * 4 + [200] * 2
    (stats,) = found.facts.intensity
    assert (stats["max"], stats["min"]) == (5000, image.min())
    assert stats["mean"] == pytest.approx(image.mean(dtype=np.float64), rel=1e-6)
    assert stats["p99_5"] == pytest.approx(np.percentile(image, 99.5), rel=1e-6)


def test_the_size_is_that_of_what_is_kept(look):
    image, label = np.zeros((1, 10, 9, 8), np.float32), np.zeros((10, 9, 8), np.uint8)
    image[0, 3:7, 2:8, 3:5] = np.random.default_rng(0).normal(9, 1, (4, 6, 2))
    label[4, 4, 4:7] = 2
    found = look(image, label, STORED_AS_PSR)
    assert found.facts.shape == (4, 4, 6)
    assert found.facts.intensity[0]["min"] == 0


def test_slanted_scans_are_refused_or_resampled(tmp_path, write_case, caplog):
    image, label = volumes((20, 20, 20))
    slanted = affine_from((1, 1, 1))
    slanted[0, 2] = 0.5
    case = write_case(tmp_path, image, label, slanted)
    with pytest.raises(GeometryError, match=r"case_1\.nii: two axes are .* off a right angle"):
        survey(case, ("MR",), LABELS)
    facts = survey(case, ("MR",), LABELS, resample_oblique=True).facts
    assert facts.shape == (30, 20, 20)
    assert facts.oddities == ("axes are not at right angles: resampled",)


def test_a_large_foreground_is_drawn_from_evenly(look):
    image = np.zeros((1, 30, 30, 30), np.float32)
    label = np.full((30, 30, 30), 2, np.uint8)
    image[0, :15] = 1
    found = look(image, label).foreground
    assert found.shape == (1, 10_000)
    assert found.mean() == pytest.approx(0.5, abs=0.03)


def test_each_oddity_is_put_into_words(look, caplog):
    image, label = volumes()
    broken = np.concatenate([image, np.full_like(image, 7)])
    broken[0, 5, 4, 3], broken[1, 5, 4, 3] = np.inf, np.nan
    found = look(broken, np.where(label == 5, 0, label), channels=("T1", "T2"))
    assert found.facts.oddities == (
        "2 voxels are NaN or infinite",
        "channel 1 is constant",
        "no shell",
    )
    assert "NaN or infinite" in caplog.text
    assert np.isfinite([list(stats.values()) for stats in found.facts.intensity]).all()
    assert look(image, np.zeros_like(label)).facts.oddities == ("the label is empty",)


def test_a_case_that_cannot_be_used_says_why(look, tmp_path, write_case):
    image, label = volumes()
    with pytest.raises(LabelError, match="3"):
        look(image, np.where(label == 2, 3, label))
    with pytest.raises(DatasetError, match=r"case_1\.nii: no voxel holds a finite number"):
        look(np.full_like(image, np.nan), label)
    case = write_case(tmp_path, image, label)
    write_case(tmp_path / "other", image, label, affine_from((1, 1, 1), (0, 5, 0)))
    moved = tmp_path / "other" / "labels" / "case_1.nii"
    moved.replace(tmp_path / "labels" / "case_1.nii")
    with pytest.raises(GeometryError, match="positions differ by 5 mm"):
        survey(case, ("MR",), LABELS)


def cohort_of(surveys) -> Cohort:
    from lamina.data.case import Case

    cases = tuple(Case(case_id=s.facts.case_id, group="p", images=()) for s in surveys)
    return Cohort(name="Task", channels=("MR",), labels=LABELS, cases=cases)


def test_foreground_is_pooled_over_cases_with_and_without_it(look):
    image, label = volumes()
    empty = np.zeros_like(label)
    surveys = [
        look(image, label, case_id="a"),
        look(image, empty, case_id="b"),
        look(image * 3, label, case_id="c"),
    ]
    fingerprint = make_fingerprint(cohort_of(surveys), surveys)
    (stats,) = fingerprint.foreground_intensity
    assert (stats["min"], stats["max"]) == (100, 600)
    assert stats["mean"] == pytest.approx((4 * 100 + 2 * 200) * 4 / 12)
    assert fingerprint.orientation == "RAS"
    assert [facts.case_id for facts in fingerprint.cases] == ["a", "b", "c"]
    json.dumps(fingerprint.as_dict(), allow_nan=False)


def test_a_cohort_without_any_labelled_voxel_is_refused(look):
    image, label = volumes()
    found = look(image, np.where(label == 9, 9, 0))
    with pytest.raises(DatasetError, match="Task: all labels are empty"):
        make_fingerprint(cohort_of([found]), [found])


def test_images_keep_the_orientation_most_of_them_have(look):
    image, label = np.zeros((1, 5, 4), np.float32), np.full((5, 4), 2, np.uint8)
    image[0, 0, 0] = 1
    turned = affine_from((1, 1))
    turned[0, 0] = -1
    surveys = [look(image, label, turned), look(image, label), look(image, label, turned)]
    fingerprint = make_fingerprint(cohort_of(surveys[:1]), surveys)
    assert (fingerprint.spatial_dims, fingerprint.orientation) == (2, "LA")


def test_medians_are_taken_along_each_axis_after_resampling():
    facts = [
        CaseFacts(
            case_id=str(number),
            shape=shape,
            spacing=spacing,
            orientation="RAS",
            intensity=(),
            voxels={},
            oddities=(),
        )
        for number, (shape, spacing) in enumerate(
            [((10, 20, 30), (1, 1, 4)), ((20, 20, 10), (2, 1, 3)), ((40, 20, 10), (3, 1, 8))]
        )
    ]
    fingerprint = Fingerprint(
        spatial_dims=3,
        orientation="RAS",
        channels=(),
        cases=tuple(facts),
        foreground_intensity=(),
    )
    assert fingerprint.median_spacing == (2, 1, 4)
    assert fingerprint.median_shape((1, 1, 2)) == (40, 20, 40)
    assert fingerprint.spacing_percentile(2, 0) == 3
