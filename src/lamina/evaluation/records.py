"""Scores that an earlier evaluation left, read back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.errors import FileError
from lamina.evaluation.metrics import METRICS, Unit
from lamina.evaluation.protocols import PROTOCOLS
from lamina.evaluation.scores import Scores
from lamina.evaluation.summary import Score
from lamina.files import read_json
from lamina.labels import LabelSet


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a ``scores.json`` says."""

    scores: Scores
    """Its rows, those of metrics included that are not known here."""
    declared: Mapping[str, Mapping[str, Any]]
    """Name of a metric -> definition, unit, and rule for empty masks, as they were then."""


def read_recorded(path: Path) -> Recorded:
    """Read the ``scores.json`` that :meth:`~lamina.evaluation.scores.Scores.write` wrote.

    Raises:
        FileError: It is missing, damaged, or something else.
        LabelError: Its labels contradict themselves.
    """
    data = read_json(path)
    try:
        return Recorded(scores=_scores(data), declared=_declared(data))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path}: is not what evaluate writes ({type(error).__name__}: {error}).",
            remedy="Score the segmentations again with lamina evaluate --out.",
        ) from error


def _scores(data: Mapping[str, Any]) -> Scores:
    unit: Unit = "px" if data["unit"] == "px" else "mm"
    protocol = data.get("protocol")
    known = PROTOCOLS.get(protocol).metrics if protocol else map(METRICS.get, METRICS)
    names = {metric.measured_in(unit).name: metric.name for metric in known}
    if strange := {row["metric"] for row in data["rows"]} - data["rules"].keys():
        raise ValueError(f"no rule for {', '.join(sorted(strange))}")
    return Scores(
        labels=LabelSet.from_dict(data["labels"]),
        metrics=tuple(names[name] for name in data["rules"] if name in names),
        rows=tuple(Score(**row | {"value": _number(row["value"])}) for row in data["rows"]),
        failures=dict(data["failures"]),
        not_predicted=tuple(data["not_predicted"]),
        unit=unit,
        protocol=protocol,
        predictions=data.get("predictions", ""),
        references=data.get("references", ""),
        probabilities=data.get("probabilities", ""),
        version=data.get("version", ""),
    )


def _declared(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "definition": data["definitions"][name],
            "unit": data["units"][name],
            "empty masks": rule,
        }
        for name, rule in data["rules"].items()
    }


def _number(value: float | None) -> float:
    number = math.nan if value is None else float(value)
    if math.isinf(number):
        raise ValueError("a value is infinite")
    return number
