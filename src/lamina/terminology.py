"""What structures are called in DICOM: codes of SNOMED CT.

Codes and meanings are those of PS3.16, its context groups 7150 (categories), 7151 and following
(property types), 4031 (anatomy) and 244 (laterality).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.colours import Colour
from lamina.errors import LabelError

_LONGEST = 64
_LONGEST_SCHEME = 16


def is_text(text: object, longest: int) -> bool:
    """Tell whether DICOM can hold a name as it is: short, printable, without a backslash."""
    fits = isinstance(text, str) and text.strip() == text and 0 < len(text) <= longest
    return fits and str(text).isprintable() and "\\" not in str(text)


@dataclass(frozen=True)
class Code:
    """A concept of a coding scheme, such as ``Code("10200004", "Liver")``."""

    value: str
    meaning: str
    scheme: str = "SCT"

    def __post_init__(self) -> None:
        limits = (self.value, _LONGEST), (self.meaning, _LONGEST), (self.scheme, _LONGEST_SCHEME)
        for text, longest in limits:
            if not is_text(text, longest):
                raise LabelError(
                    f"terms: {text!r} is no part of a code.",
                    remedy=f"Parts are of 1 to {longest} printable letters without backslash.",
                )

    def as_list(self) -> list[str]:
        """Return plain data for JSON."""
        return [self.value, self.meaning, self.scheme]


ANATOMY = Code("91723000", "Anatomical Structure")
TISSUE = Code("85756007", "Tissue")
ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
LEFT, RIGHT = Code("7771000", "Left"), Code("24028007", "Right")


@dataclass(frozen=True, kw_only=True)
class Term:
    """What a structure is, and how to show it."""

    category: Code = TISSUE
    type: Code = TISSUE
    modifier: Code | None = None
    """Which one of its type, such as left."""
    colour: Colour | None = None

    def hex_colour(self) -> str:
        """Return the colour as ``#rrggbb``; grey where there is none."""
        return "#{:02x}{:02x}{:02x}".format(*(self.colour or (128, 128, 128)))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :func:`read_terms` reads it back."""
        codes = {"category": self.category, "type": self.type, "modifier": self.modifier}
        plain: dict[str, Any] = {key: code.as_list() for key, code in codes.items() if code}
        return plain | ({"colour": list(self.colour)} if self.colour else {})


def known_term(name: str) -> Term:
    """Return the term that a structure's name suggests; plain tissue where it suggests none."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    whole = _code_of(words)
    sides = [] if whole else [_SIDES[word] for word in words if word in _SIDES]
    found = whole or _code_of([word for word in words if word not in _SIDES])
    if found is None or len(sides) > 1:
        return Term()
    category, code = found
    return Term(category=category, type=code, modifier=sides[0] if sides else None)


def read_terms(data: Mapping[str, Any]) -> dict[str, Term]:
    """Read terms from plain data, such as a ``dataset.json`` holds.

    Args:
        data: Structure name -> ``category``, ``type`` and ``modifier``, each a list of code value,
            meaning and, unless it is SCT, scheme; and ``colour``, a list of red, green and blue.
            What is left out is taken from :func:`known_term`, unless the type is declared.

    Raises:
        LabelError: It is not of this form.
    """
    return {str(name): _read_term(str(name), entry) for name, entry in data.items()}


def _read_term(name: str, entry: Any) -> Term:
    if not isinstance(entry, Mapping) or not set(entry) <= {"category", "type", *_OPTIONAL}:
        raise LabelError(
            f"terms: {name!r} is {entry!r:.80}.",
            remedy="It may have category, type, modifier and colour.",
        )
    codes = {key: _read_code(name, value) for key, value in entry.items() if key != "colour"}
    if "type" in codes:
        codes = {"category": ANATOMY} | codes
    else:
        known = known_term(name)
        codes = {"category": known.category, "type": known.type} | codes
        codes.setdefault("modifier", known.modifier)
    colour = _read_colour(name, entry["colour"]) if "colour" in entry else None
    return Term(**codes, colour=colour)


def _read_code(name: str, value: Any) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) not in (2, 3):
        raise LabelError(
            f"terms: a code of {name!r} is {value!r:.80}.",
            remedy='Codes are lists of value, meaning and scheme: ["10200004", "Liver", "SCT"].',
        )
    return Code(*value)


def _read_colour(name: str, value: Any) -> Colour:
    if not (
        isinstance(value, Sequence)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        raise LabelError(
            f"terms: the colour of {name!r} is {value!r:.80}.",
            remedy="Colours are red, green and blue, each 0 to 255.",
        )
    return value[0], value[1], value[2]


def _code_of(words: Sequence[str]) -> tuple[Code, Code] | None:
    """Return the category and type that words stand for, in the singular or plural."""
    name = " ".join(words)
    for key in (name, name.removesuffix("s"), name.removesuffix("es")):
        key = _SYNONYMS.get(key, key)
        if key in _ANATOMY:
            return ANATOMY, Code(*_ANATOMY[key])
        if key in _ABNORMAL:
            return ABNORMAL, Code(*_ABNORMAL[key])
    return None


_OPTIONAL = ("modifier", "colour")
_SIDES = {"left": LEFT, "l": LEFT, "right": RIGHT, "r": RIGHT}
_SYNONYMS = {
    "brainstem": "brain stem",
    "csf": "cerebrospinal fluid",
    "gall bladder": "gallbladder",
    "haemorrhage": "hemorrhage",
    "haematoma": "hematoma",
    "left ventricular myocardium": "myocardium",
    "oedema": "edema",
    "oesophagus": "esophagus",
    "peritumoral edema": "edema",
    "postcava": "inferior vena cava",
    "small bowel": "small intestine",
    "thyroid gland": "thyroid",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "urinary bladder": "bladder",
    "vertebrae": "vertebra",
}
_ANATOMY = {
    "abdominal aorta": ("7832008", "Abdominal aorta"),
    "adrenal gland": ("23451007", "Adrenal gland"),
    "amygdala": ("4958002", "Amygdala"),
    "aorta": ("15825003", "Aorta"),
    "aortic arch": ("57034009", "Aortic arch"),
    "ascending aorta": ("54247002", "Ascending aorta"),
    "bile duct": ("28273000", "Bile duct"),
    "bladder": ("89837001", "Bladder"),
    "blood vessel": ("59820001", "Blood Vessel"),
    "bone": ("272673000", "Bone"),
    "brain": ("12738006", "Brain"),
    "brain stem": ("119238007", "Brain Stem"),
    "breast": ("76752008", "Breast"),
    "bronchus": ("955009", "Bronchus"),
    "carotid artery": ("69105007", "Carotid Artery"),
    "caudate nucleus": ("11000004", "Caudate Nucleus"),
    "cerebellum": ("113305005", "Cerebellum"),
    "cerebral cortex": ("40146001", "Cerebral cortex"),
    "cerebrospinal fluid": ("65216001", "Cerebrospinal Fluid"),
    "clavicle": ("51299004", "Clavicle"),
    "colon": ("71854001", "Colon"),
    "coronary artery": ("41801008", "Coronary artery"),
    "corpus callosum": ("88442005", "Corpus callosum"),
    "descending aorta": ("281130003", "Descending aorta"),
    "diaphragm": ("5798000", "Diaphragm"),
    "duodenum": ("38848004", "Duodenum"),
    "esophagus": ("32849002", "Esophagus"),
    "eye": ("81745001", "Eye"),
    "fat": ("256674009", "Fat"),
    "femoral head": ("2812003", "Femoral head"),
    "femur": ("71341001", "Femur"),
    "gallbladder": ("28231008", "Gallbladder"),
    "globus pallidus": ("14738005", "Globus Pallidus"),
    "heart": ("80891009", "Heart"),
    "hepatic vein": ("8993003", "Hepatic vein"),
    "hippocampus": ("5366008", "Hippocampus"),
    "humerus": ("85050009", "Humerus"),
    "iliac artery": ("10293006", "Iliac artery"),
    "iliac vein": ("244411005", "Iliac vein"),
    "inferior vena cava": ("64131007", "Inferior vena cava"),
    "inner ear": ("22945000", "Inner ear"),
    "kidney": ("64033007", "Kidney"),
    "large intestine": ("14742008", "Large intestine"),
    "lateral ventricle": ("66720007", "Lateral Ventricle"),
    "left atrium": ("82471001", "Left atrium"),
    "left ventricle": ("87878005", "Left ventricle"),
    "liver": ("10200004", "Liver"),
    "lung": ("39607008", "Lung"),
    "lung lower lobe": ("90572001", "Lower lobe of lung"),
    "lung middle lobe": ("72481006", "Middle lobe of right lung"),
    "lung upper lobe": ("45653009", "Upper lobe of lung"),
    "lymph node": ("59441001", "Lymph Node"),
    "mandible": ("91609006", "Mandible"),
    "muscle": ("71616004", "Muscle"),
    "myocardium": ("49848007", "Left Ventricle Myocardium"),
    "optic chiasm": ("244453006", "Optic chiasm"),
    "optic nerve": ("18234004", "optic nerve"),
    "ovary": ("15497006", "Ovary"),
    "pancreas": ("15776009", "Pancreas"),
    "parotid gland": ("45289007", "Parotid gland"),
    "pericardium": ("76848001", "Pericardium"),
    "pituitary": ("56329008", "Pituitary"),
    "portal vein": ("32764006", "Portal vein"),
    "prostate": ("41216001", "Prostate"),
    "pulmonary artery": ("81040000", "Pulmonary artery"),
    "pulmonary vein": ("122972007", "Pulmonary vein"),
    "putamen": ("89278009", "Putamen"),
    "radius": ("131190003", "Radius"),
    "rectum": ("34402009", "Rectum"),
    "rib": ("113197003", "Rib"),
    "right atrium": ("73829009", "Right atrium"),
    "right ventricle": ("53085002", "Right ventricle"),
    "sacrum": ("54735007", "Sacrum"),
    "scapula": ("79601000", "Scapula"),
    "seminal vesicle": ("64739004", "Seminal Vesicle"),
    "skin": ("39937001", "Skin"),
    "skull": ("89546000", "Skull"),
    "small intestine": ("30315005", "Small intestine"),
    "spinal cord": ("2748008", "Spinal cord"),
    "spine": ("421060004", "Spine"),
    "spleen": ("78961009", "Spleen"),
    "splenic vein": ("35819009", "Splenic vein"),
    "sternum": ("56873002", "Sternum"),
    "stomach": ("69695003", "Stomach"),
    "submandibular gland": ("54019009", "Submandibular gland"),
    "superior vena cava": ("48345005", "Superior vena cava"),
    "testis": ("40689003", "Testis"),
    "thalamus": ("42695009", "Thalamus"),
    "thyroid": ("69748006", "Thyroid"),
    "tibia": ("12611008", "Tibia"),
    "tooth": ("38199008", "Tooth"),
    "trachea": ("44567001", "Trachea"),
    "ulna": ("23416004", "Ulna"),
    "uterus": ("35039007", "Uterus"),
    "vertebra": ("51282000", "Vertebra"),
    "white matter": ("389080008", "White Matter"),
}
_ABNORMAL = {
    "aneurysm": ("85659009", "aneurysm"),
    "cyst": ("367643001", "Cyst"),
    "edema": ("79654002", "Edema"),
    "effusion": ("41699000", "Effusion"),
    "hematoma": ("35566002", "Hematoma"),
    "hemorrhage": ("50960005", "Hemorrhage"),
    "lesion": ("52988006", "Lesion"),
    "necrosis": ("6574001", "Necrosis"),
    "neoplasm": ("108369006", "Neoplasm"),
    "nodule": ("27925004", "Nodule"),
    "pleural effusion": ("60046008", "Pleural effusion"),
    "thrombus": ("396339007", "Thrombus"),
}
