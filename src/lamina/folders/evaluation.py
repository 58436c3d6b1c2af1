"""Scores on disk: what ``evaluate`` left of one method, read back to be compared with others'."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from lamina.data.case import patient_of
from lamina.errors import DatasetError, FileError
from lamina.evaluation.records import read_recorded
from lamina.evaluation.scores import Scores
from lamina.files import read_json, write_json
from lamina.folders.prediction import RECORD, read_record
from lamina.folders.run import BUNDLE, OUT_OF_FOLD
from lamina.volume import Volume

SCORES = "scores.json"
CASES = "cases.json"
"""Beside the scores: each case's patient, where known, and what was compared with what."""

_INSIDE = (SCORES, f"scores/{SCORES}", f"{OUT_OF_FOLD}/{SCORES}")
"""Where a folder of scores, of a demonstration or of a cross-validation has them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one set of segmentations."""

    path: Path
    scores: Scores
    metrics: Mapping[str, Mapping[str, Any]]
    """Name -> definition, unit, and rule for empty masks, as they were measured."""
    patients: Mapping[str, str]
    """Case -> patient, where it is recorded."""
    references: Mapping[str, str]
    """Case -> SHA-256 of its reference, where it is recorded."""
    segmentations: Mapping[str, str]
    """Case -> SHA-256 of what was scored, where it is recorded."""
    files: Mapping[str, str]
    """Case -> SHA-256 of the file that was scored, where ``predict`` had recorded it."""

    @cached_property
    def values(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Metric -> case -> structure or region -> value; NaN where the metric does not apply."""
        values: dict[str, dict[str, dict[str, float]]] = {name: {} for name in self.metrics}
        for row in self.scores.rows:
            values[row.metric].setdefault(row.case, {})[row.label] = row.value
        return values

    @cached_property
    def present(self) -> Mapping[str, Mapping[str, bool]]:
        """Case -> structure or region -> whether the reference has it."""
        present: dict[str, dict[str, bool]] = {}
        for row in self.scores.rows:
            there = row.rule not in ("reference empty", "both empty")
            present.setdefault(row.case, {})[row.label] = there
        return present

    @cached_property
    def missed(self) -> frozenset[tuple[str, str]]:
        """Cases with structures or regions of which the segmentation has nothing."""
        rows = self.scores.rows
        return frozenset((r.case, r.label) for r in rows if r.rule == "prediction empty")

    @property
    def tried(self) -> frozenset[str]:
        """Cases that were segmented, or that failed."""
        return frozenset(self.present) | frozenset(self.scores.failures)

    @property
    def cases(self) -> frozenset[str]:
        """Those, and the ones that only have a reference."""
        return self.tried | frozenset(self.scores.not_predicted)


def fingerprint(label_map: Volume) -> str:
    """Return the SHA-256 of a label map's class indices, shape and voxel size."""
    grid = np.round(np.asarray(label_map.spacing, np.float64), 6)
    head = f"{label_map.array.shape} {grid.tolist()} {label_map.unit} "
    return sha256(head.encode() + label_map.array.astype(np.uint8).tobytes()).hexdigest()


def recorded_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each segmentation that the record in ``folder`` names."""
    cases = read_record(folder)["cases"]
    return {entry["case_id"]: entry["sha256"] for entry in cases if entry["segmentation"]}


def recorded_patients(folder: Path) -> dict[str, str]:
    """Return the patient of each case that the record of a run's own scans in ``folder`` names."""
    cases = (entry.get("case") or {} for entry in read_record(folder)["cases"])
    return {case["case_id"]: case["group"] for case in cases if "group" in case}


def patients_of(cases: Collection[str], recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the patient of each case: as recorded, or as the case's name tells."""
    return {case: recorded.get(case) or patient_of(case) for case in cases}


def unrecorded_told(cases: Collection[str], recorded: Mapping[str, str]) -> str:
    """Return what to know of patients of whom no record tells; empty where all are recorded."""
    unknown = [case for case in cases if not recorded.get(case)]
    if not unknown:
        return ""
    whose = "the cases" if len(unknown) == len(cases) else f"{len(unknown)} of the cases"
    return f"Patients are told by the names of {whose}: no record says whose they are."


def write_evaluation(
    folder: Path, scores: Scores, compared: Mapping[str, Mapping[str, str | None]]
) -> None:
    """Write scores.

    Args:
        folder: Where to.
        scores: Of all cases.
        compared: Case -> ``patient``, ``reference_sha256``, ``segmentation_sha256`` and
            ``file_sha256``, as :class:`Evaluation` has them; ``None`` where unknown.

    Raises:
        FileError: The folder cannot be written.
    """
    scores.write(folder)
    write_json(folder / CASES, compared)


def read_evaluation(place: Path) -> Evaluation:
    """Read scores.

    Args:
        place: A ``scores.json``, the folder it lies in, or the folder of a cross-validation.

    Raises:
        DatasetError: There are no scores.
        FileError: They are not what ``evaluate`` wrote.
    """
    file = _find(place)
    recorded = read_recorded(file)
    beside = file.parent / CASES
    known = _known(beside) if beside.is_file() else {}
    if not known and (file.parent / RECORD).is_file():
        known = {"patient": recorded_patients(file.parent)}
    found = Evaluation(
        path=file,
        scores=recorded.scores,
        metrics=recorded.declared,
        patients=known.get("patient", {}),
        references=known.get("reference_sha256", {}),
        segmentations=known.get("segmentation_sha256", {}),
        files=known.get("file_sha256", {}),
    )
    _check_complete(found)
    return found


def _known(file: Path) -> dict[str, dict[str, str]]:
    """Return each case's patient and hashes, where known: name -> case -> value."""
    try:
        known: dict[str, dict[str, str]] = {}
        for case, told in read_json(file).items():
            for name, value in told.items():
                if value:
                    known.setdefault(name, {})[case] = value
        return known
    except AttributeError as error:
        raise FileError(
            f"{file}: is not what evaluate writes ({error}).",
            remedy="Score the segmentations again with lamina evaluate --out.",
        ) from error


def _check_complete(found: Evaluation) -> None:
    labels = found.scores.labels
    wanted = {*labels.values, *labels.regions}
    for name, of_cases in found.values.items():
        for case in found.present:
            if of_cases.get(case, {}).keys() != wanted:
                raise FileError(
                    f"{found.path}: {case} lacks {name} of a structure, or has one too many.",
                    remedy="Score the segmentations again with lamina evaluate --out.",
                )


def _find(place: Path) -> Path:
    if place.is_file():
        return place
    for name in _INSIDE:
        if (place / name).is_file():
            return place / name
    if (place / BUNDLE).is_file():
        raise DatasetError(
            f"{place}: a run without scores.",
            remedy=f"Score it first: lamina predict -m {place} --split val -o SEG; "
            "lamina evaluate -p SEG --out SCORES; and compare SCORES.",
        )
    fault = f"holds no {SCORES}" if place.is_dir() else "no such file or folder"
    raise DatasetError(
        f"{place}: {fault}.", remedy="Give folders that lamina evaluate --out wrote."
    )
