"""Pseudonyms for what is derived from a patient's series.

The object follows the basic profile of PS3.15, annex E, as far as its tags go: the patient has a
made-up name and number, dates, times and free text of the study are gone, and every UID, those
that refer to the series too, is a new one. Names of structures are kept: they are the model's.
"""

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lamina.io.derived.source import EMPTY_TAGS, Plane, Source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DUMMY_DATE = "19000101"
"""Stands for dates that an object must have."""
DUMMY_TIME = "000000"

_METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
)


@dataclass(frozen=True)
class Pseudonyms:
    """New names and UIDs, the same for the same patient and UID as long as this object lives."""

    uids: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)

    def uid(self, original: str) -> str:
        """Return what stands for a UID; it cannot be traced back."""
        from pydicom.uid import generate_uid

        return self.uids.setdefault(original, str(generate_uid(prefix=None)))

    def patient(self, original: str) -> str:
        """Return what stands for a patient, eight letters."""
        return self.patients.setdefault(original, secrets.token_hex(4))

    def source(self, source: Source) -> Source:
        """Return a series that says nothing about its patient."""
        return replace(
            source,
            planes=tuple(map(self._plane, source.planes)),
            patient=self._nobody(source.patient),
            study=self.uid(source.study),
            series=self.uid(source.series),
            frame_of_reference=self.uid(source.frame_of_reference),
            position_reference="",
            series_number=0,
        )

    def _plane(self, plane: Plane) -> Plane:
        return replace(plane, sop_instance=self.uid(plane.sop_instance))

    def _nobody(self, patient: "Dataset") -> "Dataset":
        from pydicom.dataset import Dataset

        nobody = Dataset()
        known = f"{patient.get('PatientID')} {patient.get('PatientName')}"
        for tag in EMPTY_TAGS:
            setattr(nobody, tag, "")
        number = self.patient(known)
        nobody.PatientID, nobody.PatientName = f"anonymous-{number}", f"Anonymous^{number}"
        nobody.PatientIdentityRemoved = "YES"
        nobody.LongitudinalTemporalInformationModified = "REMOVED"
        nobody.DeidentificationMethodCodeSequence = [_coded(*code) for code in _METHODS]
        return nobody


def without_dates(written: "Dataset") -> None:
    """Replace the dates and times at which an object was made, which tell of the visit."""
    for tag in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        if tag in written:
            del written[tag]
    for tag, dummy in (("ContentDate", DUMMY_DATE), ("ContentTime", DUMMY_TIME)):
        if tag in written:
            setattr(written, tag, dummy)
    for tag in ("StructureSetDate", "StructureSetTime"):
        if tag in written:
            setattr(written, tag, "")


def _coded(value: str, meaning: str) -> "Dataset":
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
