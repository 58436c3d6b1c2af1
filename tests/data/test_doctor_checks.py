"""Each check finds the fault it is for, and says nothing of sound cases."""

from dataclasses import replace

import numpy as np
import pytest

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.diagnosis import CHECKS, diagnose
from lamina.data.doctor.examine import examine
from lamina.data.doctor.groups import condensed
from lamina.data.doctor.mend import REPAIRS, plan_mending
from lamina.data.doctor.outliers import robust_z
from lamina.data.doctor.suspicions import sided_pairs
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume

LABELS = LabelSet(values={"core": 1, "shell": 2})
SIZE = (20, 22, 18)


def scan(number, channels=1):
    """A lopsided head of noise with a core and a shell, a little different for every number."""
    rng = np.random.default_rng(number)
    grid = np.stack(np.indices(SIZE)) / np.reshape(SIZE, (3, 1, 1, 1))
    nose = np.exp(
        -((grid - rng.normal([[0.3], [0.7], [0.65]], 0.03)[..., None, None]) ** 2).sum(0) * 9
    )
    layers = [
        100 * nose + rng.normal(0, 6, SIZE) + 10,
        -1000 + 900 * (grid[0] > 0.5) + rng.normal(0, 20, SIZE),
        np.exp(rng.normal(1, 1, SIZE)) * (1 + grid[1]),
    ]
    label = np.zeros(SIZE, np.uint8)
    low = np.array(np.unravel_index(number, (4, 5, 5))) + 4
    label[tuple(slice(a, a + 6) for a in low)] = 2
    label[tuple(slice(a + 2, a + 4) for a in low)] = 1
    return np.stack(layers[:channels]).astype(np.float32), label


def found_by(findings, check):
    return {f.case: f.message for f in findings if f.check == check}


class Hospital:
    """Writes cases and examines them."""

    def __init__(self, folder):
        self.folder = folder
        self.cases = {}
        self.held_out = set()

    def admit(self, name, image, label, affine=None, label_affine=None, group=None, held_out=False):
        affine = affine_from((1.0, 1.0, 2.0)) if affine is None else affine
        files = [self.folder / kind / f"{name}.nii" for kind in ("image", "label")]
        write_volume(Volume(image, affine), files[0])
        if label is not None:
            put = affine if label_affine is None else label_affine
            write_volume(Volume(label[None], put), files[1])
        self.cases[name] = Case(
            case_id=name,
            group=group or name,
            images=(files[0],),
            label=None if label is None else files[1],
        )
        if held_out:
            self.held_out.add(name)

    def findings(self, labels=LABELS, channels=("MR",)):
        values = labels.values
        sided = {values[name] for pair in sided_pairs(labels) for name in pair}
        seen = [examine(c, sided=sided, held_out=self.held_out) for c in self.cases.values()]
        own = tuple(c for c in self.cases.values() if c.case_id not in self.held_out)
        cohort = Cohort(name="Task", channels=channels, labels=labels, cases=own)
        found = diagnose(cohort, seen)
        assert {finding.check for finding in found} <= CHECKS.keys()
        assert {finding.mend for finding in found} <= REPAIRS.keys() | {""}
        return found


@pytest.fixture
def hospital(tmp_path):
    """Ten sound scans."""
    place = Hospital(tmp_path)
    for number in range(10):
        place.admit(f"sound_{number}", *scan(number))
    return place


def of(findings, case):
    return [(f.severity, f.check, f.mend) for f in findings if f.case == case]


def test_sound_scans_give_no_findings(hospital):
    assert hospital.findings() == ()


def test_files_that_cannot_be_read_are_named(hospital):
    image, label = scan(50)
    hospital.admit("cut", image, label)
    path = hospital.cases["cut"].images[0]
    path.write_bytes(path.read_bytes()[:1000])
    hospital.admit("lost", image + 3, label)
    hospital.cases["lost"].label.unlink()
    found = hospital.findings()
    assert of(found, "cut") == [("error", "unreadable", "")]
    assert of(found, "lost") == [("error", "unreadable", "")]
    (cut,) = (f for f in found if f.case == "cut")
    assert cut.file == str(path)
    assert str(path) not in cut.message
    assert cut.remedy


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (lambda affine: affine + np.eye(4)[:, [0]] @ np.eye(4)[[3]] * 0.4, "take_grid"),
        (lambda affine: affine + np.eye(4)[:, [0]] @ np.eye(4)[[3]] * 7, ""),
        (lambda affine: np.diag([-1.0, -1, 1, 1]), "take_grid"),
    ],
    ids=["slightly off", "far off", "without a header"],
)
def test_a_misplaced_label_is_mended_only_where_its_header_is_to_blame(hospital, change, mend):
    affine = affine_from((1.0, 1.0, 2.0), (5, 5, 5))
    hospital.admit("off", *scan(50), affine, change(affine))
    found = hospital.findings()
    assert of(found, "off") == [("error", "grid", mend)]
    assert "mm" in next(f.message for f in found if f.case == "off")


def test_a_label_of_another_size_is_an_error(hospital):
    image, label = scan(50)
    hospital.admit("small", image, label[:-2])
    assert of(hospital.findings(), "small") == [("error", "grid", "")]


def test_what_label_values_mean_is_not_guessed(hospital):
    image, label = scan(50)
    hospital.admit("seven", image, np.where(label == 1, 7, label).astype(np.uint8))
    found = hospital.findings()
    assert ("error", "values", "") in of(found, "seven")
    assert "7 (8 voxels)" in next(f.message for f in found if f.check == "values")


def test_a_mask_of_255_is_mended_where_one_structure_is_declared(hospital):
    labels = LabelSet(values={"lesion": 4})
    for name, case in hospital.cases.items():
        image, label = scan(int(name[-1]))
        hospital.admit(name, image, (4 * (label > 0)).astype(np.uint8), group=case.group)
    image, label = scan(50)
    hospital.admit("mask", image, np.where(label > 0, 255, 0).astype(np.uint8))
    found = hospital.findings(labels)
    assert of(found, "mask") == [("error", "values", "renumber")]
    assert of(found, "") == [("note", "values", "")]  # 4 leaves a gap


def test_masks_whose_values_nobody_declared_are_judged_together(hospital):
    for name in list(hospital.cases)[:4]:
        image, label = scan(int(name[-1]))
        hospital.admit(name, image, np.where(label > 0, 255, 0).astype(np.uint8))
    for name in list(hospital.cases)[4:]:
        image, label = scan(int(name[-1]))
        hospital.admit(name, image, (label > 0).astype(np.uint8))
    found = hospital.findings(LabelSet(values={"label_1": 1, "label_255": 255}))
    assert ("error", "values", "renumber") in of(found, "")


def test_a_mask_of_255_among_labels_of_several_structures_is_no_structure_of_its_own(hospital):
    image, label = scan(50)
    hospital.admit("mask", image, np.where(label > 0, 255, 0).astype(np.uint8))
    found = hospital.findings(LabelSet(values={"label_1": 1, "label_2": 2, "label_255": 255}))
    assert ("warning", "values", "") in of(found, "")
    (warning,) = (f for f in found if f.check == "values" and f.severity == "warning")
    assert ": mask;" in warning.message


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (1.0002, ("note", "values", "round")),
        (0.98, ("error", "values", "round")),
        (0.7, ("error", "values", "")),
    ],
)
def test_labels_near_whole_numbers_are_rounded_and_others_not(hospital, scale, expected):
    image, label = scan(50)
    hospital.admit("float", image, (label * scale).astype(np.float32))
    assert of(hospital.findings(), "float") == [expected]


def test_empty_labels_and_missing_structures_are_told_apart(hospital):
    image, label = scan(50)
    hospital.admit("empty", image, np.zeros_like(label))
    image, label = scan(51)
    hospital.admit("half", image, np.where(label == 1, 0, label).astype(np.uint8))
    found = hospital.findings(LabelSet(values={"core": 1, "shell": 2, "moon": 3}))
    messages = {f.case: f.message for f in found if f.check == "structures"}
    assert messages.keys() == {"", "empty", "half"}
    assert "moon" in messages[""]
    assert messages["empty"] == "the label is empty."
    assert "core" in messages["half"]
    assert "moon" not in messages["half"]


def test_broken_and_constant_voxels_are_counted(hospital):
    image, label = scan(50)
    image[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    hospital.admit("nan", image, label)
    hospital.admit("flat", np.full_like(image, 7), scan(51)[1])
    hospital.admit("void", np.full_like(image, np.nan), scan(52)[1])
    found = hospital.findings()
    assert of(found, "nan") == [("warning", "not_finite", "replace_nan")]
    assert "3 of 7920" in next(f.message for f in found if f.case == "nan")
    assert of(found, "flat") == [("error", "constant", "")]
    assert of(found, "void") == [("error", "not_finite", "")]


def test_a_wrong_unit_shows_as_spacing_and_size(hospital):
    hospital.admit("cm", *scan(50), affine_from((0.1, 0.1, 0.2)))
    assert of(hospital.findings(), "cm") == [("warning", "spacing", ""), ("warning", "size", "")]


def test_the_same_axes_stored_otherwise_are_noted_and_compared_in_space(hospital):
    image, label = scan(3)
    affine = affine_from((-1.0, 1.0, 2.0), (SIZE[0] - 1, 0, 0))
    hospital.admit("turned", image[:, ::-1].copy(), label[::-1].copy(), affine)
    found = of(hospital.findings(), "turned")
    assert ("note", "orientation", "") in found
    assert ("error", "duplicate", "leave_out") in found


def test_intensities_far_from_the_usual_are_reported(hospital):
    image, label = scan(50)
    hospital.admit("bright", image * 100, label)
    found = hospital.findings()
    assert of(found, "bright") == [("warning", "intensity", "")]
    assert "median" in next(f.message for f in found if f.case == "bright")


def test_many_outliers_are_one_finding(hospital):
    for number in range(5):
        image, label = scan(50 + number)
        hospital.admit(f"bright_{number}", image * 100, label)
    (finding,) = hospital.findings()
    assert finding.case == ""
    assert "5 of 15" in finding.message


def test_duplicates_are_found_by_voxels_whatever_the_header(hospital):
    image, label = scan(3)
    hospital.admit("twin", image, label, affine_from((1, 1, 2), (9, 9, 9)))
    hospital.admit("visit", *scan(4), group="sound_4")
    image, label = scan(5)
    hospital.admit("judge", image, np.roll(label, 1, 0))
    found = hospital.findings()
    assert of(found, "twin") == [("error", "duplicate", "leave_out")]
    assert of(found, "visit") == [("warning", "duplicate", "leave_out")]
    assert of(found, "judge") == of(found, "sound_5") == [("error", "duplicate", "")]


def test_near_duplicates_of_another_patient_are_found(hospital):
    image, label = scan(3)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    copy = (1.2 * image + noise).astype(np.float32)
    hospital.admit("copy", copy, np.roll(label, 1, 0))
    hospital.admit("again", copy + 1, np.roll(label, 1, 1), group="copy")
    found = hospital.findings()
    near = [(f.case, f.other) for f in found if f.check == "near_duplicate"]
    assert near == [("again", "sound_3"), ("copy", "sound_3")]


def test_a_label_copied_onto_another_image_is_reported(hospital):
    hospital.admit("wrong", scan(50)[0], scan(3)[1])
    assert of(hospital.findings(), "wrong") == [("warning", "duplicate", "")]


def test_scans_of_the_test_folder_must_not_be_trained_on(hospital):
    hospital.admit("copy (test)", scan(3)[0], None, held_out=True)
    hospital.admit("sound_6 (test)", scan(60)[0], None, group="sound_6", held_out=True)
    found = hospital.findings()
    assert of(found, "sound_3") == [("error", "train_test", "leave_out")]
    assert of(found, "sound_6") == [("warning", "train_test", "")]
    assert len(found) == 2


def test_channels_in_another_order_are_suspected(tmp_path):
    hospital = Hospital(tmp_path)
    for number in range(10):
        image, label = scan(number, channels=3)
        hospital.admit(f"case_{number}", image[[0, 2, 1]] if number == 4 else image, label)
    found = hospital.findings(channels=("MR", "CT", "PET"))
    assert {f.case for f in found} == {"case_4"}
    (order,) = (f for f in found if f.check == "channel_order")
    assert "look like MR, PET, CT; declared are MR, CT, PET" in order.message


def test_too_few_channels_and_equal_ones_are_reported(tmp_path):
    hospital = Hospital(tmp_path)
    image, label = scan(0, channels=3)
    hospital.admit("two", image[:2], label)
    hospital.admit("same", scan(1, channels=3)[0][[0, 1, 1]], scan(1)[1])
    found = hospital.findings(channels=("MR", "CT", "PET"))
    assert of(found, "two") == [("error", "channels", "")]
    assert of(found, "same") == [("warning", "channels", "")]


def test_a_mirrored_scan_and_an_inverted_one_are_suspected(hospital):
    image, label = scan(50)
    hospital.admit("mirrored", image[:, ::-1].copy(), label[::-1].copy())
    image, label = scan(51)
    hospital.admit("inverted", 150 - image, label)
    found = hospital.findings()
    assert of(found, "mirrored") == [("warning", "sides", "")]
    assert "mirrored left to right" in next(f.message for f in found if f.case == "mirrored")
    assert ("warning", "intensity", "") in of(found, "inverted")
    assert "sides" not in {f.check for f in found if f.case == "inverted"}


def test_left_and_right_in_names_are_held_against_their_places(hospital):
    labels = LabelSet(values={"kidney_left": 1, "kidney_right": 2})
    for number, name in enumerate(list(hospital.cases)):
        image, label = scan(number)
        label[:] = 0
        label[2 : 5 + number % 3, 2:5, 2:5], label[-5:-2, 2:5, 2:5] = 1, 2
        if number == 7:
            label = label[::-1].copy()
        hospital.admit(name, image, label)
    found = [f for f in hospital.findings(labels) if f.check == "sides"]
    assert [f.case for f in found] == ["sound_7"]
    assert "9 of 10 cases" in found[0].message


def test_sides_are_read_from_names():
    labels = LabelSet(
        values={
            "lung_left": 1,
            "Right kidney": 2,
            "lung_right": 3,
            "rib left 3": 4,
            "bright": 5,
            "Femur_R": 6,
            "Femur_L": 7,
            "left ventricle": 8,
            "right ventricle": 9,
        }
    )
    assert sided_pairs(labels) == [("lung_left", "lung_right"), ("Femur_L", "Femur_R")]


def test_robust_z_is_not_moved_by_the_outlier():
    values = np.array([1.0, 2, 3, 4, 5, 1000])
    assert robust_z(values, 0.1)[-1] > 100
    assert robust_z(np.ones(5), 0.1).tolist() == [0] * 5


def test_doubts_of_the_reader_become_findings(hospital, caplog):
    shear = affine_from((1.0, 1.0, 2.0))
    shear[0, 1] = 0.3
    hospital.admit("tilted", *scan(50), shear)
    caplog.clear()  # writing warns of nothing, but reading would
    found = hospital.findings()
    assert of(found, "tilted") == [("error", "header", "")]
    assert "--resample-oblique" in next(f.remedy for f in found if f.case == "tilted")
    assert caplog.text == ""


def finding(case, severity="error", mend="", **more):
    fields = {"check": "values", "file": "", "message": "m", "remedy": "r"} | more
    return Finding(case=case, severity=severity, mend=mend, **fields)


def test_mending_plans_repairs_and_leaves_out_what_has_none():
    plan = plan_mending(
        [
            finding("a", mend="round"),
            finding("a", "warning", "replace_nan"),
            finding("b", mend="round"),
            finding("b"),
            finding("c", "warning"),
            finding("d", mend="leave_out", other="b"),
            finding("e", mend="leave_out", other="a"),
        ]
    )
    assert [(c.case, c.repair) for c in plan] == [
        ("a", "round"),
        ("a", "replace_nan"),
        ("b", "leave_out"),
        ("e", "leave_out"),
    ]


def test_images_are_examined_as_volumes_are(tmp_path):
    hospital = Hospital(tmp_path)
    for number in range(8):
        image, label = scan(number)
        rows = (slice(None),) * 3
        hospital.admit(f"flat_{number}", image[(*rows, 8)], label[..., 8], np.eye(4))
    image, label = scan(3)
    hospital.admit("twin", image[..., 8], label[..., 8], np.eye(4))
    labels = replace(LABELS, values={"core": 1, "shell": 2})
    assert ("error", "duplicate", "leave_out") in of(hospital.findings(labels), "twin")


def test_blank_and_repeated_slices_are_reported_and_empty_ends_are_not(hospital):
    image, label = scan(50)
    image[..., :2] = image[..., -1] = 0
    hospital.admit("cropped", image.copy(), label)
    image[..., 9] = 0
    hospital.admit("blank", image, label)
    image, label = scan(51)
    image[..., 12] = image[..., 11]
    hospital.admit("repeated", image, label)
    messages = found_by(hospital.findings(), "slices")
    assert messages.keys() == {"blank", "repeated"}
    assert "slice 9 " in messages["blank"]
    assert "slice 12 " in messages["repeated"]


def test_a_structure_that_skips_a_slice_is_reported_and_two_apart_are_not(hospital):
    image, label = scan(50)
    label[:] = 0
    label[4:9, 4:9, 3:9] = 2
    label[..., 6] = 0
    label[4:9, 4:9, 14:16] = 2
    label[12:16, 12:16, 3:9:2] = 1
    label[12:16, 12:16, 4:9:2] = 0
    hospital.admit("skips", image, label)
    messages = [f.message for f in hospital.findings() if f.check == "slices"]
    assert len(messages) == 2
    assert any(m.startswith("shell skips slice 6 (") for m in messages)
    assert any(m.startswith("core skips slices 4, 6 (") for m in messages)


def test_a_patient_and_an_image_on_two_sides_of_the_split_are_errors(hospital):
    hospital.admit("again", scan(60)[0], scan(60)[1], group="sound_2")
    hospital.admit("twin", *scan(3))
    for name, case in hospital.cases.items():
        side = "test" if name in ("again", "twin") else "train"
        hospital.cases[name] = replace(case, side=side)
    found = [f for f in hospital.findings() if f.check == "train_test"]
    assert {f.severity for f in found} == {"error"}
    messages = " ".join(f.message for f in found)
    assert (
        "patient sound_2 is on both sides of the split: train (sound_2), test (again)" in messages
    )
    assert "the image of sound_3 is on both sides" in messages
    assert len(found) == 2
    assert [(c.case, c.repair) for c in plan_mending(found)] == []


def test_a_split_that_ignores_patients_is_one_finding(hospital):
    for name, case in hospital.cases.items():
        number = int(name[-1])
        side = "val" if number % 2 else "train"
        hospital.cases[name] = replace(case, side=side, group=f"patient_{number // 2}")
    (finding,) = (f for f in hospital.findings() if f.check == "train_test")
    assert finding.case == ""
    assert "5 of 10" in finding.message


def test_what_scanners_do_not_leave_behind_is_noted(tmp_path):
    hospital = Hospital(tmp_path)
    for number in range(6):
        image, label = scan(number)
        image = np.round((image - image.min()) / np.ptp(image) * 50) * 20
        type_ = np.int16 if number else np.float32
        cut = slice(number % 2, None)
        hospital.admit(f"case_{number}", image[:, :, cut].astype(type_), label[:, cut])
    found = [f for f in hospital.findings() if f.check == "processing"]
    assert {(f.severity, f.case) for f in found} == {("note", "")}
    messages = " ".join(f.message for f in found)
    assert "int16 (5), float32 (1)" in messages
    assert "MR from 0 to 1000" in messages
    assert "multiples of a number above 1: MR 20" in messages
    assert "all begin at 0 x 0 x 0 mm and have voxels of 1 x 1 x 2 mm" in messages


def test_few_patients_are_said_to_be_few(tmp_path):
    hospital = Hospital(tmp_path)
    for number in range(3):
        hospital.admit(f"case_{number}", *scan(number))
    assert [f.check for f in hospital.findings()] == ["few"]


def test_objects_of_a_scan_are_one_label(hospital):
    image, label = scan(50)
    hospital.admit("objects", image, np.where(label == 1, label, 0))
    shell = hospital.folder / "shell.nii"
    odd = np.where(label == 2, 9, 0).astype(np.uint8)
    write_volume(Volume(odd[None], affine_from((1.0, 1.0, 2.0))), shell)
    case = hospital.cases["objects"]
    hospital.cases["objects"] = replace(case, objects=(shell,))
    found = hospital.findings()
    assert of(found, "objects") == [("error", "values", ""), ("warning", "structures", "")]
    shell.unlink()
    assert of(hospital.findings(), "objects") == [("error", "unreadable", "")]


def picture(folder, name, shape, **about):
    rng = np.random.default_rng(sum(map(ord, name)))
    label = np.zeros((1, *shape), np.uint8)
    label[0, 3:9, int(name) % 10 :][:, :5] = 1
    files = [folder / kind / f"{name}.png" for kind in ("images", "masks")]
    image = rng.integers(0, 255, (1, *shape)).astype(np.uint8)
    for array, path in zip((image, label), files, strict=True):
        write_volume(Volume(array, np.diag([-1.0, -1, 1, 1]), unit="px"), path)
    return Case(case_id=name, group=name, images=(files[0],), label=files[1], **about)


def test_pixel_sizes_of_a_list_count(tmp_path):
    hospital = Hospital(tmp_path)
    for number in range(6):
        size = (0.1, 0.1) if number else (2.0, 2.0)
        hospital.cases[str(number)] = picture(tmp_path, str(number), (30, 20), spacing=size)
    found = hospital.findings(LabelSet(values={"lesion": 1}), ("grey",))
    assert [(f.case, f.check) for f in found] == [("0", "spacing"), ("0", "size")]


def test_squares_and_few_long_sides_of_pictures_are_noted(tmp_path):
    hospital = Hospital(tmp_path)
    shapes = [(40, 40)] * 4 + [(40, 30)] * 4 + [(24, 18)] * 4 + [(24, 20)] * 4
    for number, shape in enumerate(shapes):
        hospital.cases[str(number)] = picture(tmp_path, str(number), shape)
    found = hospital.findings(LabelSet(values={"lesion": 1}), ("grey",))
    messages = [f.message for f in found if f.check == "processing"]
    assert messages == [
        "4 of 16 pictures are exactly 40 x 40.",
        "pictures of many shapes have only 2 long sides: 40 (8), 24 (8).",
    ]


def test_a_screen_tells_what_many_cases_share_once_and_the_gravest_first():
    alike = [finding(f"case_{n}", "warning", message=f"off by {n}.") for n in range(20)]
    few = [finding("a"), finding("b")]
    general = [finding("", "note"), finding("", "note", message="n")]
    shown = condensed([*general, *alike, *few], 30)
    assert [(f.severity, f.case) for f in shown] == [
        ("error", "a"),
        ("error", "b"),
        ("warning", ""),
        ("note", ""),
        ("note", ""),
    ]
    assert shown[2].message == (
        "20 of 30 cases (case_0, case_1, case_2 and 17 more); case_0, for one: off by 0."
    )
