"""Structures get the codes that DICOM has for them, or those that were declared."""

import json

import pytest

from lamina import terminology
from lamina.colours import default_colour
from lamina.data.layouts import nnunet
from lamina.data.layouts.msd import read_task
from lamina.errors import LabelError
from lamina.files import write_json
from lamina.labels import LabelSet
from lamina.terminology import (
    ABNORMAL,
    ANATOMY,
    LEFT,
    RIGHT,
    TISSUE,
    Code,
    Term,
    known_term,
    read_terms,
)


def test_every_code_is_one_of_dicoms_with_its_own_meaning():
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts["SCT"]
    known = {(value, meaning[0]) for one in concepts.values() for value, meaning in one.items()}
    tables = {**terminology._ANATOMY, **terminology._ABNORMAL}
    own = {
        *tables.values(),
        *((c.value, c.meaning) for c in (ANATOMY, ABNORMAL, TISSUE, LEFT, RIGHT)),
    }
    assert own <= known
    assert len(tables) > 90


@pytest.mark.parametrize(
    ("name", "value", "side"),
    [
        ("liver", "10200004", None),
        ("Liver", "10200004", None),
        ("kidneys", "64033007", None),
        ("kidney_left", "64033007", LEFT),
        ("right kidney", "64033007", RIGHT),
        ("Lung-L", "39607008", LEFT),
        ("left ventricle", "87878005", None),
        ("lung_upper_lobe_right", "45653009", RIGHT),
        ("gall bladder", "28231008", None),
        ("postcava", "64131007", None),
        ("adrenal glands", "23451007", None),
        ("Tumour", "108369006", None),
        ("testes", "85756007", None),
        ("label_7", "85756007", None),
        ("left", "85756007", None),
        ("left and right kidney", "85756007", None),
    ],
)
def test_names_suggest_codes(name, value, side):
    term = known_term(name)
    assert (term.type.value, term.modifier) == (value, side)


def test_lesions_are_no_anatomy_and_the_unknown_is_tissue():
    assert known_term("lesion").category == ABNORMAL
    assert known_term("spleen").category == ANATOMY
    assert known_term("thing") == Term(category=TISSUE, type=TISSUE)


def test_declared_terms_go_before_the_known_and_through_json():
    data = {
        "liver": {"type": ["1", "My liver", "99LOCAL"], "modifier": ["2", "Big"]},
        "left kidney": {"colour": [1, 2, 3]},
        "all": {"category": ["85756007", "Tissue"]},
    }
    values = {"liver": 1, "left kidney": 2, "spleen": 4}
    labels = LabelSet(values=values, regions={"all": ("liver", "spleen")}, terms=read_terms(data))
    again = LabelSet.from_dict(json.loads(json.dumps(labels.as_dict())))
    assert again == labels
    assert again.term("liver").type == Code("1", "My liver", "99LOCAL")
    assert again.term("liver").category == ANATOMY
    kidney = again.term("left kidney")
    assert (kidney.colour, kidney.type.meaning, kidney.modifier) == ((1, 2, 3), "Kidney", LEFT)
    assert again.term("spleen").colour == default_colour(2)
    assert again.term("all").colour == default_colour(3)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"typ": ["1", "x"]}, "'liver' is"),
        ("10200004", "'liver' is '10200004'"),
        ({"type": "10200004"}, "a code of 'liver'"),
        ({"type": ["10200004"]}, "a code of 'liver'"),
        ({"type": [10200004, "Liver"]}, "10200004 is no part of a code"),
        ({"type": ["10200004", ""]}, "'' is no part of a code"),
        ({"type": ["10200004", "Li\\ver"]}, "is no part of a code"),
        ({"type": ["1", "Liver", "a scheme of many letters"]}, "is no part of a code"),
        ({"colour": "red"}, "the colour of 'liver'"),
        ({"colour": [1, 2]}, "the colour of 'liver'"),
        ({"colour": [0, 0, 256]}, "the colour of 'liver'"),
        ({"colour": [0.5, 0, 0]}, "the colour of 'liver'"),
    ],
)
def test_terms_of_another_form_are_refused(entry, fault):
    with pytest.raises(LabelError, match=fault):
        read_terms({"liver": entry})


def test_terms_of_unknown_structures_are_refused():
    with pytest.raises(LabelError, match=r"terms are declared for \['livr'\]"):
        LabelSet(values={"liver": 1}, terms={"livr": Term()})


def test_a_dataset_declares_terms(tmp_path):
    terms = {"liver": {"colour": [9, 8, 7]}}
    write_json(tmp_path / "dataset.json", {"labels": {"liver": 1}, "terms": terms})
    assert read_task(tmp_path / "dataset.json")["labels"].term("liver").colour == (9, 8, 7)
    raw = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 1}
    labels = {"background": 0, "left kidney": 2}
    write_json(tmp_path / "dataset.json", raw | {"labels": labels, "terms": {"kidney": {}}})
    with pytest.raises(LabelError, match=r"dataset.json: .*terms are declared for \['kidney'\]"):
        nnunet.read(tmp_path)
