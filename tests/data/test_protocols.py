"""Protocols of papers, applied to cohorts whose cases are called as in the downloads."""

from dataclasses import replace

import numpy as np
import pytest

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.datasets import load_description
from lamina.data.protocols import apply_protocol, follow, match, used_by
from lamina.errors import DatasetError, UnknownNameError
from lamina.labels import LabelSet


def cohort_of(ids, values=(1, 2, 3), licence="") -> Cohort:
    return Cohort(
        name="download",
        channels=("channel_0",),
        labels=LabelSet(values={f"label_{value}": value for value in values}),
        cases=tuple(Case(case_id=i, group=patient_of(i), images=()) for i in ids),
        licence=licence,
    )


def brats():
    return cohort_of(f"BRATS_{n:03d}" for n in range(1, 485))


def brats_from(first):
    return cohort_of(f"BRATS_{n:03d}" for n in range(first, 485))


def abdomen():
    ids = [f"img{n:04d}" for n in [*range(1, 11), *range(21, 41)]]
    return cohort_of(ids, values=range(1, 14))


def hearts():
    return cohort_of(
        f"patient{n:03d}_frame{frame}" for n in range(1, 101) for frame in ("01", "12")
    )


def livers():
    return cohort_of((f"volume-{n}" for n in range(131)), values=(1, 2))


def breasts():
    kinds = {"benign": 4, "malignant": 2, "normal": 3}
    ids = [f"{kind} ({n})" for kind, count in kinds.items() for n in range(1, count + 1)]
    return cohort_of(ids, values=(1,))


def assigned(cohort, name, paper):
    return apply_protocol(cohort, load_description(name), paper)


def sides(found):
    """Return the cases to train on, to validate on, kept for the end, and left to be divided."""
    cases = found.cohort.cases
    return [[c.case_id for c in cases if c.side == s] for s in ("train", "val", "test", "")]


def counts(found):
    return [len(side) for side in sides(found)]


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["BRATS_001", "BRATS_484"], ["msd_task01"]),
        (["BraTS2021_00000", "BraTS2021_01666"], ["brats2021"]),
        (["BraTS-GLI-00000-000"], ["brats2023"]),
        (["img0001", "img0040"], ["btcv", "synapse"]),
        (["patient001_frame01", "patient001_frame12"], ["acdc"]),
        (["volume-0", "volume-130"], ["lits"]),
        (["case_00000", "case_00588"], ["kits23"]),
        (["benign (1)", "malignant (210)", "normal (3)"], ["busi"]),
        (["ISIC_0000000"], ["isic2018"]),
        (["cju0qkwl35piu0993l0dewei2"], ["kvasir_seg"]),
        (["IMD002", "IMD437"], ["ph2"]),
        (["BRATS_001", "mine"], []),
        (["case_001"], []),
    ],
)
def test_a_folder_is_recognised_by_the_names_of_all_its_cases(ids, names):
    assert [description.name for description in match(cohort_of(ids))] == names


def test_shared_scans_belong_to_the_dataset_that_the_paper_used():
    assert used_by(abdomen(), "dainet").name == "synapse"
    assert used_by(abdomen(), "glims").name == "btcv"
    with pytest.raises(DatasetError, match=r"is acdc; mpunet has no protocol.* one for lits"):
        used_by(hearts(), "mpunet")
    with pytest.raises(DatasetError, match="is no dataset that is described"):
        used_by(cohort_of(["mine"]), "glims")


def test_lightmedseg_trains_on_387_and_keeps_73_for_the_end():
    found = assigned(brats(), "msd_task01", "lightmedseg")
    assert counts(found) == [387, 24, 73, 0]
    _, val, test, _ = sides(found)
    assert (val[:2], test[0]) == (["BRATS_058", "BRATS_059"], "BRATS_011")
    assert (found.missing, found.surplus, found.departures) == ((), (), ())
    assert found.cohort.labels.relabel == {}
    assert found.cohort.labels.regions["tumour core"] == (
        "non-enhancing tumour",
        "enhancing tumour",
    )


def test_both_scans_of_a_heart_stay_together():
    for paper in ("lightmedseg", "dainet"):
        found = assigned(hearts(), "acdc", paper)
        assert counts(found) == [140, 20, 40, 0]
        groups = [{patient_of(i) for i in side} for side in sides(found)[:3]]
        assert [len(group) for group in groups] == [70, 10, 20]
        assert len(set.union(*groups)) == 100


def test_synapse_becomes_eight_organs_with_the_values_of_the_files():
    found = assigned(abdomen(), "synapse", "dainet")
    assert counts(found) == [15, 3, 12, 0]
    assert sides(found)[2][-1] == "img0038"
    assert found.cohort.channels == ("CT",)
    labels = found.cohort.labels
    assert labels.num_classes == 9
    assert list(labels.values.items())[:3] == [
        ("aorta", 8),
        ("gallbladder", 4),
        ("left kidney", 3),
    ]
    assert labels.relabel == {5: 0, 9: 0, 10: 0, 12: 0, 13: 0}


def test_lits_becomes_liver_and_the_folds_are_left_to_be_made():
    found = assigned(livers(), "lits", "mpunet")
    assert not found.has_split
    assert counts(found) == [0, 0, 20, 111]
    assert sides(found)[2] == [f"volume-{n}" for n in range(27, 47)]
    assert "one was left out" in found.departures[0]
    labels = found.cohort.labels
    assert (labels.values, labels.relabel) == ({"liver": 1}, {2: 1})
    assert labels.encode(np.array([0, 1, 2]), "file").tolist() == [0, 1, 1]
    assert LabelSet.from_dict(labels.as_dict()) == labels


def test_without_public_lists_all_cases_are_there_to_be_divided():
    found = assigned(abdomen(), "btcv", "glims")
    assert counts(found) == [0, 0, 0, 30]
    assert found.cohort.labels.relabel == {}
    assert found.cohort.labels.foreground[:2] == ("spleen", "right kidney")


def test_normal_breasts_are_left_out():
    found = assigned(breasts(), "busi", "lgmsnet")
    assert counts(found) == [0, 0, 0, 6]
    assert found.departures[0] == "6 cases are here, 647 in the paper."
    assert found.surplus == ("normal (1)", "normal (2)", "normal (3)")


def test_pictures_saved_with_other_values_keep_their_labels():
    found = assigned(breasts(), "busi", "lgmsnet")
    assert dict(found.cohort.labels.values) == {"label_1": 1}


def test_an_incomplete_download_says_what_it_lacks():
    ids = [f"BRATS_{n:03d}" for n in range(1, 485) if n not in (1, 58, 397)]
    found = assigned(cohort_of([*ids, "phantom"]), "msd_task01", "lightmedseg")
    assert found.missing == (1, 58, 397)
    assert found.surplus == ("phantom",)
    assert counts(found) == [386, 23, 72, 0]
    assert found.departures == ("3 cases of the paper are not here: numbers 1, 58, 397.",)
    found = assigned(brats_from(40), "msd_task01", "lightmedseg")
    assert found.departures[0].endswith("numbers 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 29 more.")
    found = assigned(cohort_of(["img0001", "img0002"], values=(1,)), "btcv", "glims")
    assert len(found.missing) == 28


def test_a_side_that_the_dataset_gives_stays_where_the_paper_has_none():
    cohort = breasts()
    given = replace(cohort, cases=tuple(replace(c, side="val") for c in cohort.cases))
    assert counts(assigned(given, "busi", "lgmsnet")) == [0, 6, 0, 0]
    hearts_given = replace(hearts(), cases=tuple(replace(c, side="val") for c in hearts().cases))
    assert counts(assigned(hearts_given, "acdc", "dainet")) == [140, 20, 40, 0]


def test_a_named_channel_is_not_renamed():
    cohort = replace(abdomen(), channels=("dual-energy CT",))
    assert assigned(cohort, "btcv", "glims").cohort.channels == ("dual-energy CT",)


def test_a_protocol_is_followed_by_name_and_misspelt_names_are_refused():
    assert follow(abdomen(), "dainet").dataset == "synapse"
    assert follow(brats_from(1), "lightmedseg", "msd_task01").missing == ()
    with pytest.raises(UnknownNameError, match="Unknown protocol 'lightmed'. Did you mean light"):
        follow(brats(), "lightmed")
    with pytest.raises(UnknownNameError, match="Unknown dataset 'msd_task1'. Did you mean msd_t"):
        follow(brats(), "lightmedseg", "msd_task1")


def test_a_side_without_cases_is_refused():
    with pytest.raises(DatasetError, match="none of the cases that the protocol validates on"):
        assigned(cohort_of(["BRATS_001", "BRATS_011"]), "msd_task01", "lightmedseg")
    with pytest.raises(DatasetError, match=r"trains on.* are called volume-0"):
        assigned(cohort_of(["volume-27"], values=(1, 2)), "lits", "mpunet")
    with pytest.raises(DatasetError, match="trains on"):
        assigned(cohort_of(["scan_1"], values=(1, 2)), "lits", "mpunet")


def test_labels_of_another_dataset_are_refused():
    cohort = cohort_of((f"volume-{n}" for n in range(131)), values=(1, 2, 7))
    with pytest.raises(DatasetError, match=r"has the labels \[7\]; lits has"):
        assigned(cohort, "lits", "mpunet")


def test_a_dataset_that_is_only_tested_on_trains_nothing():
    with pytest.raises(DatasetError, match="lgmsnet only tests on it. Train on isic2018"):
        assigned(cohort_of(["IMD002"]), "ph2", "lgmsnet")


def test_a_paper_without_a_protocol_is_refused():
    with pytest.raises(UnknownNameError, match=r"acdc: 'glims' .* Known: lightmedseg, dainet"):
        assigned(hearts(), "acdc", "glims")


def test_the_licence_of_the_download_goes_before_ours():
    assert assigned(livers(), "lits", "mpunet").cohort.licence == "see the site"
    given = cohort_of(["BRATS_001", "BRATS_058"], licence="as given")
    assert assigned(given, "msd_task01", "lightmedseg").cohort.licence == "as given"
