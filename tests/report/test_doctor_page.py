"""The page about a dataset stands alone, shows the cases, and cannot be broken by names."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.diagnosis import CHECKS
from lamina.data.doctor.mend import plan_mending
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.report.doctor import MAX_PICTURED, save_report
from lamina.report.overlay import label_colours
from lamina.report.thumbnails import draw_case
from lamina.volume import Volume

pytest.importorskip("jinja2")
LABELS = LabelSet(values={"core": 2})


@pytest.fixture
def cohort(tmp_path):
    """One volume of two channels with a cube; beside it, a file that is no scan."""
    image = np.random.default_rng(0).normal(100, 10, (2, 20, 24, 12)).astype(np.float32)
    label = np.zeros((1, 20, 24, 12), np.uint8)
    label[0, 4:12, 4:12, 3:9] = 2
    affine = affine_from((1, 1, 3))
    write_volume(Volume(image, affine), tmp_path / "image.nii")
    write_volume(Volume(label, affine), tmp_path / "label.nii")
    (tmp_path / "cut.nii").write_bytes(b"no scan")
    cases = (
        Case(
            case_id="one",
            group="p1",
            images=(tmp_path / "image.nii",),
            label=tmp_path / "label.nii",
        ),
        Case(case_id="cut", group="p2", images=(tmp_path / "cut.nii",), label=None),
    )
    return Cohort(name="Task <b>1</b>", channels=("T1", "T2"), labels=LABELS, cases=cases)


def finding(case, severity="warning", check="size", **more):
    fields = {"file": f"/data/imagesTr/{case}.nii", "message": "is odd.", "remedy": "Look."} | more
    return Finding(severity=severity, check=check, case=case, **fields)


def page_of(cohort, findings, folder):
    cases = {case.case_id: case for case in cohort.cases}
    save_report(folder / "index.html", cohort, cases, findings, plan_mending(findings))
    return (folder / "index.html").read_text(encoding="utf-8")


def pixels(picture):
    data = base64.b64decode(picture.data.partition(",")[2])
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_page_fetches_nothing_and_obeys_no_name(cohort, tmp_path):
    findings = [finding("one", message="<script>alert(1)</script>"), finding("cut", "error")]
    page = page_of(cohort, findings, tmp_path / "report")
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "Task &lt;b&gt;1&lt;/b&gt;" in page
    assert all(
        source.startswith("data:image/png;base64,") for source in re.findall(r'src="(.{22})', page)
    )


def test_findings_remedies_changes_and_checks_are_listed(cohort, tmp_path):
    findings = [
        finding("", "note", message="axes differ."),
        finding("one", message="is far off.", remedy="Look at it."),
        finding("cut", "error", check="unreadable", message="ends early."),
    ]
    page = page_of(cohort, findings, tmp_path / "report")
    for text in ("Axes differ.", "Is far off.", "Look at it.", "Ends early.", "imagesTr/one.nii"):
        assert text in page
    assert "Not to be used as they are: 1 of 2 cases." in page
    assert "The case is not copied." in page
    assert all(check.replace("_", " ") in page for check in CHECKS)
    assert page.index("Ends early.") < page.index("Is far off.")


def test_a_sound_dataset_has_a_page_that_says_so(cohort, tmp_path):
    page = page_of(cohort, [], tmp_path)
    assert "Every case can be used." in page
    assert "Nothing was found." in page


def test_pictures_show_the_outline_in_its_colour_and_true_proportions(cohort):
    pictures, legend = draw_case(cohort.cases[0], cohort)
    assert [picture.caption.split(",")[0] for picture in pictures] == [
        "axial",
        "coronal",
        "sagittal",
    ]
    (colour,) = label_colours(LABELS).values()
    assert legend == {"core": "#" + "".join(f"{round(c * 255):02x}" for c in colour)}
    drawn = pixels(pictures[0])
    outline = (drawn == np.round(np.array(colour) * 255)).all(axis=-1)
    rows, columns = np.nonzero(outline)
    scale = drawn.shape[0] / 24  # pixels per mm; the axial plane is 24 mm high and 20 wide
    assert drawn.shape[1] == pytest.approx(20 * scale, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(8 * scale, abs=1)
    assert np.ptp(columns) + 1 == pytest.approx(8 * scale, abs=1)
    assert not outline[
        rows.min() + 10 : rows.max() - 10, columns.min() + 10 : columns.max() - 10
    ].any()


def test_a_label_is_drawn_where_its_header_puts_it(cohort, tmp_path):
    case = cohort.cases[0]
    label = np.zeros((1, 20, 24, 12), np.uint8)
    label[0, 4:12, 4:12, 3:9] = 2
    write_volume(Volume(label, affine_from((1, 1, 3), (500, 0, 0))), tmp_path / "away.nii")
    assert draw_case(replace(case, label=tmp_path / "away.nii"), cohort)[1] == {}
    write_volume(
        Volume(label[:, :, :, 2:], affine_from((1, 1, 3), (0, 0, 6))), tmp_path / "cut.nii"
    )
    whole, cropped = (
        pixels(draw_case(replace(case, label=path), cohort)[0][1])
        for path in (case.label, tmp_path / "cut.nii")
    )
    np.testing.assert_array_equal(whole, cropped)


def test_other_channels_are_drawn_when_a_finding_is_about_them(cohort, tmp_path):
    pictures, _ = draw_case(cohort.cases[0], cohort, all_channels=True)
    assert [p.caption for p in pictures] == ["axial, T1", "coronal, T1", "sagittal, T1", "T2"]
    few = page_of(cohort, [finding("one")], tmp_path)
    many = page_of(cohort, [finding("one", check="channel_order")], tmp_path)
    assert (few.count('T1"'), many.count('T1"')) == (3, 3)
    assert (few.count('T2"'), many.count('T2"')) == (0, 1)


def test_values_without_a_name_and_files_that_cannot_be_read_do_no_harm(cohort, tmp_path):
    case = cohort.cases[0]
    label = np.full((1, 20, 24, 12), np.nan, np.float32)
    label[0, 5:9, 5:9, 5:9] = 77
    write_volume(Volume(label, affine_from((1, 1, 3))), tmp_path / "odd.nii")
    assert list(draw_case(replace(case, label=tmp_path / "odd.nii"), cohort)[1]) == ["undeclared"]
    assert draw_case(replace(case, label=tmp_path / "none.nii"), cohort)[1] == {}
    assert draw_case(cohort.cases[1], cohort) == ([], {})


def test_a_page_of_very_many_cases_draws_the_gravest(cohort, tmp_path):
    names = [f"case_{number:03d}" for number in range(MAX_PICTURED + 5)]
    cases = tuple(replace(cohort.cases[1], case_id=name, group=name) for name in names)
    last = replace(cohort.cases[0], case_id="zz_last")
    findings = [finding(name) for name in names] + [finding("zz_last", "error")]
    page = page_of(replace(cohort, cases=(*cases, last)), findings, tmp_path)
    assert page.count("<article") == len(findings)
    assert page.count("<img") == 3


def test_further_objects_of_a_case_are_drawn(cohort, tmp_path):
    case = cohort.cases[0]
    label = np.zeros((1, 20, 24, 12), np.uint8)
    label[0, 14:18, 14:20, 3:9] = 2
    write_volume(Volume(label, affine_from((1, 1, 3))), tmp_path / "object.nii")
    alone = pixels(draw_case(case, cohort)[0][0])
    both = pixels(draw_case(replace(case, objects=(tmp_path / "object.nii",)), cohort)[0][0])
    (colour,) = (np.round(np.array(c) * 255) for c in label_colours(LABELS).values())
    outlines = [(drawn == colour).all(axis=-1) for drawn in (alone, both)]
    assert outlines[1][outlines[0]].all()
    assert outlines[1].sum() > outlines[0].sum()


def test_colour_pictures_are_drawn_in_their_colours(tmp_path):
    array = np.zeros((3, 60, 40), np.uint8)
    array[0, :30], array[2, 30:] = 220, 200
    label = np.zeros((1, 60, 40), np.uint8)
    label[0, 10:20, 10:20] = 2
    for each, name in ((array, "image.png"), (label, "mask.png")):
        write_volume(Volume(each, np.diag([-1.0, -1, 1, 1]), unit="px"), tmp_path / name)
    case = Case(
        case_id="one",
        group="one",
        images=(tmp_path / "image.png",),
        label=tmp_path / "mask.png",
        spacing=(0.5, 0.5),
    )
    cohort = Cohort(name="Spots", channels=("red", "green", "blue"), labels=LABELS, cases=(case,))
    (picture,), legend = draw_case(case, cohort, all_channels=True)
    assert picture.caption == "picture"
    drawn = pixels(picture)
    left, right = drawn[-20, 20].astype(int), drawn[-20, -20].astype(int)
    assert left[0] > left[2] + 100
    assert right[2] > right[0] + 100
    (colour,) = label_colours(LABELS).values()
    assert (drawn == np.round(np.array(colour) * 255)).all(axis=-1).any()
    assert list(legend) == ["core"]


def test_cases_are_shown_even_where_nothing_is_wrong(cohort, tmp_path):
    page = page_of(replace(cohort, cases=cohort.cases[:1]), [], tmp_path / "report")
    assert "A look at the set" in page
    assert page.count("<img") == 1
