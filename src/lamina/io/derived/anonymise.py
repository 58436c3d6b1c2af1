"""Pseudonyms for what is derived from a patient's series.

The object follows the basic profile of PS3.15, annex E, as far as its tags go: the patient has a
made-up name and number, dates, times and free text of the study are gone, and every UID, those
that refer to the series too, is a new one. Names of structures are kept: they are the model's.
"""

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from secrets import token_bytes
from typing import TYPE_CHECKING, Any
from uuid import UUID

from lamina.io.derived.source import EMPTY_TAGS, Plane, Source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DUMMIES = {"ContentDate": "19000101", "ContentTime": "000000"}
"""What stands for the times that an object must have; all others are left empty."""
_TIMES = ("DA", "DT", "TM")
_NAME_BYTES = 8
_METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
)


@dataclass(frozen=True)
class Pseudonyms:
    """New names and UIDs, the same for the same patient and UID by this object and its copies.

    They are hashes under its key; once that is gone, nothing leads from one to the other.
    """

    key: bytes = field(default_factory=partial(token_bytes, 32), repr=False)
    """Made up anew for each object, and never to be stored."""

    def uid(self, original: str) -> str:
        """Return what stands for a UID."""
        return f"2.25.{UUID(bytes=self._hash(original)[:16], version=4).int}"

    def patient(self, original: str) -> str:
        """Return what stands for a patient, 16 letters."""
        return self._hash(original)[:_NAME_BYTES].hex()

    def _hash(self, original: str) -> bytes:
        return hmac.digest(self.key, original.encode(errors="backslashreplace"), "sha256")

    def source(self, source: Source) -> Source:
        """Return a series that says nothing about its patient."""
        return replace(
            source,
            planes=tuple(map(self._plane, source.planes)),
            patient=self._nobody(source),
            study=self.uid(source.study),
            series=self.uid(source.series),
            frame_of_reference=self.uid(source.frame_of_reference),
            position_reference="",
            series_number=0,
        )

    def _plane(self, plane: Plane) -> Plane:
        return replace(plane, sop_instance=self.uid(plane.sop_instance))

    def _nobody(self, source: Source) -> "Dataset":
        from pydicom.dataset import Dataset

        nobody = Dataset()
        told = [str(source.patient.get(tag) or "") for tag in ("PatientID", "PatientName")]
        # Without either, patients are as many as studies: better one in two than two in one.
        known = " ".join(told) if any(text.strip(" ^") for text in told) else source.study
        for tag in EMPTY_TAGS:
            setattr(nobody, tag, "")
        number = self.patient(known)
        nobody.PatientID, nobody.PatientName = f"anonymous-{number}", f"Anonymous^{number}"
        nobody.PatientIdentityRemoved = "YES"
        nobody.LongitudinalTemporalInformationModified = "REMOVED"
        nobody.DeidentificationMethodCodeSequence = [_coded(*code) for code in _METHODS]
        return nobody


def without_dates(written: "Dataset") -> None:
    """Take out the dates and times at which an object was made, which tell of the visit."""
    for element in _elements(written):
        if element.VR in _TIMES:
            element.value = _DUMMIES.get(element.keyword, "")


def _elements(dataset: "Dataset") -> Iterator[Any]:
    """Yield all elements, as deep as they lie; contours stay the text that they are stored as."""
    for element in map(dataset.get_item, dataset.keys()):
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _coded(value: str, meaning: str) -> "Dataset":
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
