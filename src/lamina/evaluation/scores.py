"""Scores of a set of segmentations: one row per case, label and metric, and what they amount to."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lamina.errors import GeometryError
from lamina.evaluation.metrics import METRICS, EmptyCase, Metric, Unit, empty_case
from lamina.files import write_json, write_text
from lamina.labels import IGNORE_INDEX, LabelSet

Indices = NDArray[np.integer[Any]]
Box = tuple[slice, ...]

MEAN_FOREGROUND = (
    "Mean over the structures of each case, regions left out, then mean over the cases."
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one structure or region in one case."""

    case: str
    label: str
    metric: str
    """Such as ``hd95``, or ``hd95_px`` where lengths are in pixels."""
    value: float
    """NaN when the metric does not apply."""
    rule: EmptyCase
    """Which masks were empty; the metric's rule for that case then decided the value."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric of one structure or region over all cases it applies to; NaN if there are none."""

    mean: float
    std: float
    """Sample standard deviation; NaN for a single value."""
    median: float
    min: float
    max: float
    n: int
    """Values that the figures above rest on."""
    not_applicable: int
    missed: int
    """Cases that have the structure and a prediction without any of it."""
    invented: int
    """Cases that lack the structure and a prediction with some of it."""


def score_case(
    case_id: str,
    prediction: Indices,
    reference: Indices,
    labels: LabelSet,
    spacing: Sequence[float],
    metrics: Sequence[str],
    unit: Unit = "mm",
) -> list[Score]:
    """Compare one segmentation with its reference, structure by structure and region by region.

    Args:
        case_id: Name of the case in the rows.
        prediction: Class indices ``(*S)``.
        reference: Class indices ``(*S)``; where it says ``IGNORE_INDEX``, neither map counts.
        labels: What the indices stand for.
        spacing: Voxel size along each axis.
        metrics: Registered names.
        unit: What the spacing is measured in.

    Raises:
        GeometryError: The two maps differ in shape.
        UnknownNameError: A metric is not registered.
    """
    if prediction.shape != reference.shape:
        raise GeometryError(
            f"{case_id}: sizes differ, prediction {prediction.shape}, reference {reference.shape}."
        )
    ignored = reference == IGNORE_INDEX
    if ignored.any():
        prediction = np.where(ignored, IGNORE_INDEX, prediction)
    diagonal = math.hypot(*(n * size for n, size in zip(reference.shape, spacing, strict=True)))
    measures = [METRICS.get(name).measured_in(unit) for name in metrics]
    found = find_objects(prediction, IGNORE_INDEX - 1), find_objects(reference, IGNORE_INDEX - 1)
    rows = []
    for label, classes in _classes(labels).items():
        box = _union([boxes[i - 1] for boxes in found for i in classes], reference.ndim)
        masks = np.isin(prediction[box], classes), np.isin(reference[box], classes)
        rule = empty_case(*masks)
        for metric in measures:
            value = metric.value(*masks, spacing, diagonal)
            rows.append(
                Score(case=case_id, label=label, metric=metric.name, value=value, rule=rule)
            )
    return rows


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All rows of an evaluation, and the cases that could not be scored, by name."""

    labels: LabelSet
    metrics: tuple[str, ...]
    """Registered names."""
    rows: tuple[Score, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    """Case id -> why it could not be scored."""
    not_predicted: tuple[str, ...] = ()
    """Cases that have a reference and no prediction."""
    unit: Unit = "mm"
    """What all lengths are measured in."""

    @property
    def measures(self) -> tuple[Metric, ...]:
        """The metrics as they are called, and what they count, in ``unit``."""
        return tuple(METRICS.get(name).measured_in(self.unit) for name in self.metrics)

    @property
    def cases(self) -> tuple[str, ...]:
        """Ids of the cases that were scored, in order."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    def summary(self) -> dict[str, dict[str, Summary]]:
        """Return what each structure's and region's rows amount to: label -> metric -> summary."""
        groups: dict[tuple[str, str], list[Score]] = defaultdict(list)
        for row in self.rows:
            groups[row.label, row.metric].append(row)
        return {
            label: {metric.name: _summarise(groups[label, metric.name]) for metric in self.measures}
            for label in _classes(self.labels)
        }

    def mean_foreground(self, metric: str) -> float:
        """Return the mean over the structures of each case, then over cases; NaN if none applies.

        Regions are left out, because they are unions of structures that count already. A structure
        to which the metric does not apply is left out of its case's mean.
        """
        by_case: dict[str, list[float]] = defaultdict(list)
        for row in self.rows:
            applies = row.metric == metric and not math.isnan(row.value)
            if applies and row.label in self.labels.values:
                by_case[row.case].append(row.value)
        means = [np.mean(values) for values in by_case.values()]
        return float(np.mean(means)) if means else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; NaN becomes None."""
        described = {metric.name: metric for metric in self.measures}
        summary = self.summary()
        return {
            "num_cases": len(self.cases),
            "unit": self.unit,
            "failures": dict(self.failures),
            "not_predicted": list(self.not_predicted),
            "mean_foreground": _plain({name: self.mean_foreground(name) for name in described}),
            "summary": {
                label: {metric: _plain(asdict(found)) for metric, found in row.items()}
                for label, row in summary.items()
            },
            "definitions": {name: metric.definition for name, metric in described.items()}
            | {"mean_foreground": MEAN_FOREGROUND},
            "units": {name: metric.unit for name, metric in described.items()},
            "rules": {name: metric.empty.as_dict() for name, metric in described.items()},
            "labels": self.labels.as_dict(),
            "rows": [_plain(asdict(row)) for row in self.rows],
        }

    def write(self, out_dir: Path) -> None:
        """Write ``scores.csv``, a line per case and label, and ``scores.json``, which holds it all.

        Raises:
            FileError: The folder cannot be written, or the disk is full.
        """
        write_text(out_dir / "scores.csv", self._csv())
        write_json(out_dir / "scores.json", self.as_dict())

    def _csv(self) -> str:
        lines: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.rows:
            line = lines.setdefault((row.case, row.label), {"rule": row.rule})
            line[row.metric] = "" if math.isnan(row.value) else row.value
        text = io.StringIO()
        names = [metric.name for metric in self.measures]
        writer = csv.DictWriter(text, ["case", "label", *names, "rule"], lineterminator="\n")
        writer.writeheader()
        for (case, label), line in lines.items():
            writer.writerow({"case": case, "label": label} | line)
        return text.getvalue()


def _classes(labels: LabelSet) -> dict[str, list[int]]:
    """Return the class indices of every structure, then of every region."""
    index = {name: i for i, name in enumerate(labels.foreground, start=1)}
    regions = {
        region: [index[name] for name in members] for region, members in labels.regions.items()
    }
    return {name: [i] for name, i in index.items()} | regions


def _union(boxes: Sequence[Box | None], dims: int) -> Box:
    """Return the smallest box around all boxes; one without voxels when there are none."""
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 0),) * dims
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*present, strict=True)
    )


def _summarise(rows: Sequence[Score]) -> Summary:
    values = np.array([row.value for row in rows if not math.isnan(row.value)])
    n = len(values)
    return Summary(
        mean=float(values.mean()) if n else math.nan,
        std=float(values.std(ddof=1)) if n > 1 else math.nan,
        median=float(np.median(values)) if n else math.nan,
        min=float(values.min()) if n else math.nan,
        max=float(values.max()) if n else math.nan,
        n=n,
        not_applicable=len(rows) - n,
        missed=sum(row.rule == "prediction empty" for row in rows),
        invented=sum(row.rule == "reference empty" for row in rows),
    )


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with None in place of NaN, which JSON cannot say."""
    missing = (key for key, value in data.items() if isinstance(value, float) and math.isnan(value))
    return dict(data) | dict.fromkeys(missing)
