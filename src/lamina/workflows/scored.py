"""Scores on disk: what ``evaluate`` left of one method, read back to be compared with others'."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from lamina.errors import DatasetError, FileError
from lamina.evaluation.metrics import Unit
from lamina.files import read_json
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows import RECORD
from lamina.workflows.record import read_record

SCORES = "scores.json"
CASES = "cases.json"
"""Beside the scores: each case's patient, where known, and what its reference was."""

_INSIDE = (SCORES, f"scores/{SCORES}", f"out_of_fold/{SCORES}")
"""Where a folder of scores, of a demonstration or of a cross-validation has them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one set of segmentations."""

    path: Path
    unit: Unit
    """What lengths are measured in."""
    labels: LabelSet
    metrics: Mapping[str, Mapping[str, Any]]
    """Name -> definition, unit, and rule for empty masks."""
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Metric -> case -> structure or region -> value; NaN where the metric does not apply."""
    present: Mapping[str, Mapping[str, bool]]
    """Case -> structure or region -> whether the reference has it."""
    missed: frozenset[tuple[str, str]]
    """Cases with structures or regions of which the segmentation has nothing."""
    failed: frozenset[str]
    """Cases that were tried and have no score."""
    not_predicted: frozenset[str]
    """Cases that have a reference and no segmentation."""
    patients: Mapping[str, str]
    """Case -> patient, where it is recorded."""
    references: Mapping[str, str]
    """Case -> SHA-256 of its reference, where it is recorded."""

    @property
    def tried(self) -> frozenset[str]:
        """Cases that were segmented, or that failed."""
        return frozenset(self.present) | self.failed

    @property
    def cases(self) -> frozenset[str]:
        """Those, and the ones that only have a reference."""
        return self.tried | self.not_predicted


def fingerprint(reference: Volume) -> str:
    """Return the SHA-256 of a reference's class indices, shape and voxel size."""
    grid = np.round(np.asarray(reference.spacing, np.float64), 6)
    head = f"{reference.array.shape} {grid.tolist()} {reference.unit} "
    return sha256(head.encode() + reference.array.astype(np.uint8).tobytes()).hexdigest()


def recorded_patients(folder: Path) -> dict[str, str]:
    """Return the patient of each case that the record of a run's own scans in ``folder`` names."""
    cases = (entry.get("case") or {} for entry in read_record(folder)["cases"])
    return {case["case_id"]: case["group"] for case in cases if "group" in case}


def read_evaluation(place: Path) -> Evaluation:
    """Read scores.

    Args:
        place: A ``scores.json``, the folder it lies in, or the folder of a cross-validation.

    Raises:
        DatasetError: There are no scores.
        FileError: They are not what ``evaluate`` wrote.
    """
    file = _find(place)
    content = read_json(file)
    beside = file.parent / CASES
    recorded = read_json(beside) if beside.is_file() else {}
    try:
        return _evaluation(file, content, recorded)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{file}: is not what evaluate writes ({type(error).__name__}: {error}).",
            remedy="Score the segmentations again with lamina evaluate --out.",
        ) from error


def _evaluation(file: Path, content: Mapping[str, Any], recorded: Mapping[str, Any]) -> Evaluation:
    labels = LabelSet.from_dict(content["labels"])
    values: dict[str, dict[str, dict[str, float]]] = {name: {} for name in content["rules"]}
    present: dict[str, dict[str, bool]] = {}
    missed = set()
    for row in content["rows"]:
        case, label, value = row["case"], row["label"], row["value"]
        values[row["metric"]].setdefault(case, {})[label] = _number(value)
        present.setdefault(case, {})[label] = row["rule"] not in ("reference empty", "both empty")
        if row["rule"] == "prediction empty":
            missed.add((case, label))
    _check_complete(values, present, {*labels.values, *labels.regions})
    patients = {case: known["patient"] for case, known in recorded.items() if known["patient"]}
    if not recorded and (file.parent / RECORD).is_file():
        patients = recorded_patients(file.parent)
    return Evaluation(
        path=file,
        unit="px" if content.get("unit") == "px" else "mm",
        labels=labels,
        metrics={
            name: {
                "definition": content["definitions"][name],
                "unit": content["units"][name],
                "empty masks": content["rules"][name],
            }
            for name in content["rules"]
        },
        values=values,
        present=present,
        missed=frozenset(missed),
        failed=frozenset(content["failures"]),
        not_predicted=frozenset(content["not_predicted"]),
        patients=patients,
        references={case: known["reference_sha256"] for case, known in recorded.items()},
    )


def _number(value: float | None) -> float:
    number = math.nan if value is None else float(value)
    if math.isinf(number):
        raise ValueError("a value is infinite")
    return number


def _check_complete(
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    cases: Collection[str],
    labels: Collection[str],
) -> None:
    for name, found in values.items():
        for case in cases:
            if found.get(case, {}).keys() != labels:
                raise ValueError(f"{case} lacks {name} of a structure, or has one too many")


def _find(place: Path) -> Path:
    if place.is_file():
        return place
    for name in _INSIDE:
        if (place / name).is_file():
            return place / name
    if (place / "model.lamina").is_file():
        raise DatasetError(
            f"{place}: a run without scores.",
            remedy=f"Score it first: lamina predict -m {place} --split val -o SEG; "
            "lamina evaluate -p SEG --out SCORES; and compare SCORES.",
        )
    fault = f"holds no {SCORES}" if place.is_dir() else "no such file or folder"
    raise DatasetError(
        f"{place}: {fault}.", remedy="Give folders that lamina evaluate --out wrote."
    )
