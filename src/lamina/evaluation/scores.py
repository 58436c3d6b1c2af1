"""Scores of a set of segmentations: one row per case, label and metric."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lamina.errors import GeometryError
from lamina.evaluation.calibration import widened
from lamina.evaluation.comparison import Comparison, diagonal_of
from lamina.evaluation.metrics import Metric, Unit
from lamina.evaluation.protocols import PROTOCOLS, find_metric
from lamina.evaluation.summary import Score, Summary, summarise
from lamina.files import write_json, write_text
from lamina.labels import IGNORE_INDEX, LabelSet

Indices = NDArray[np.integer[Any]]
Probabilities = NDArray[np.floating[Any]]
Box = tuple[slice, ...]

MEAN_FOREGROUND = (
    "Mean over the structures of each case, regions left out, then mean over the cases."
)
CONDITIONAL = (
    "Of the cases alone in which neither mask is empty, so that no rule for empty masks has a say: "
    "how well structures are segmented once they are found."
)


def score_case(
    case_id: str,
    prediction: Indices,
    reference: Indices,
    labels: LabelSet,
    spacing: Sequence[float],
    metrics: Sequence[str],
    unit: Unit = "mm",
    *,
    voxel_volume: float | None = None,
    protocol: str | None = None,
    probabilities: Probabilities | None = None,
) -> list[Score]:
    """Compare one segmentation with its reference, structure by structure and region by region.

    Args:
        case_id: Name of the case in the rows.
        prediction: Class indices ``(*S)``.
        reference: Class indices ``(*S)``; where it says ``IGNORE_INDEX``, neither map counts.
        labels: What the indices stand for.
        spacing: Voxel size along each axis.
        metrics: Registered names, or those of the protocol.
        unit: What the spacing is measured in.
        voxel_volume: Volume of a voxel where axes are not at right angles; the product of the
            spacing by default.
        protocol: A paper's way to measure, in place of ours.
        probabilities: Of each class index, background first, ``(num_classes, *S)``; for metrics
            that need them. A region's probability is the sum of its structures'.

    Raises:
        GeometryError: The maps differ in shape.
        UnknownNameError: A metric or the protocol is not registered.
    """
    _check_sizes(case_id, prediction, reference, probabilities)
    measures = [find_metric(name, protocol).measured_in(unit) for name in metrics]
    return [
        Score(
            case=case_id,
            label=label,
            metric=metric.name,
            value=metric.value(comparison),
            rule=comparison.empty,
        )
        for label, comparison in _comparisons(
            prediction, reference, labels, spacing, voxel_volume, probabilities
        )
        for metric in measures
    ]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All rows of an evaluation, and the cases that could not be scored, by name."""

    labels: LabelSet
    metrics: tuple[str, ...]
    """Registered names, or those of the protocol."""
    rows: tuple[Score, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    """Case id -> why it could not be scored."""
    not_predicted: tuple[str, ...] = ()
    """Cases that have a reference and no prediction."""
    unit: Unit = "mm"
    """What all lengths are measured in."""
    protocol: str | None = None
    """The paper's way to measure that was followed in place of ours."""
    predictions: str = ""
    """Where the segmentations lie, for who wants to look at them."""
    references: str = ""
    """Where the labels lie; empty where the record beside the segmentations says so."""
    probabilities: str = ""
    """Where the probabilities lie; empty where none were asked for."""

    @property
    def measures(self) -> tuple[Metric, ...]:
        """The metrics as they are called, and what they count, in ``unit``."""
        return tuple(
            find_metric(name, self.protocol).measured_in(self.unit) for name in self.metrics
        )

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
            label: {metric.name: summarise(groups[label, metric.name]) for metric in self.measures}
            for label in _classes(self.labels)
        }

    def case_means(self, metric: str, *, conditional: bool = False) -> dict[str, float]:
        """Return the mean over the structures of each case to which the metric applies at all.

        Regions are left out, because they are unions of structures that count already. A structure
        to which the metric does not apply is left out of its case's mean, and so, if the mean is
        ``conditional``, is a missed or an invented one.
        """
        by_case: dict[str, list[float]] = defaultdict(list)
        for row in self.rows:
            applies = row.metric == metric and not math.isnan(row.value)
            if conditional and row.rule:
                continue
            if applies and row.label in self.labels.values:
                by_case[row.case].append(row.value)
        return {case: float(np.mean(values)) for case, values in by_case.items()}

    def mean_foreground(self, metric: str, *, conditional: bool = False) -> float:
        """Return the mean of all cases' :meth:`case_means`; NaN if the metric applies to none."""
        means = [*self.case_means(metric, conditional=conditional).values()]
        return float(np.mean(means)) if means else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; NaN becomes None."""
        described = {metric.name: metric for metric in self.measures}
        summary = self.summary()
        return {
            "num_cases": len(self.cases),
            "unit": self.unit,
            "predictions": self.predictions,
            "references": self.references,
            "probabilities": self.probabilities,
            "failures": dict(self.failures),
            "not_predicted": list(self.not_predicted),
            "protocol": self.protocol,
            "protocol_quirks": PROTOCOLS.get(self.protocol).quirks if self.protocol else None,
            "mean_foreground": _plain({name: self.mean_foreground(name) for name in described}),
            "mean_foreground_conditional": _plain(
                {name: self.mean_foreground(name, conditional=True) for name in described}
            ),
            "summary": {
                label: {metric: _plain(asdict(found)) for metric, found in row.items()}
                for label, row in summary.items()
            },
            "definitions": {name: metric.definition for name, metric in described.items()}
            | {"mean_foreground": MEAN_FOREGROUND, "conditional": CONDITIONAL},
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


def _check_sizes(
    case_id: str, prediction: Indices, reference: Indices, probabilities: Probabilities | None
) -> None:
    sizes = {"prediction": prediction.shape}
    if probabilities is not None:
        sizes["probabilities"] = probabilities.shape[1:]
    for what, shape in sizes.items():
        if shape != reference.shape:
            raise GeometryError(
                f"{case_id}: sizes differ, {what} {shape}, reference {reference.shape}."
            )


def _comparisons(
    prediction: Indices,
    reference: Indices,
    labels: LabelSet,
    spacing: Sequence[float],
    voxel_volume: float | None,
    probabilities: Probabilities | None,
) -> Iterator[tuple[str, Comparison]]:
    """Yield each structure and region, cropped to what holds both masks and counts around them."""
    ignored = reference == IGNORE_INDEX
    num_ignored = int(np.count_nonzero(ignored))
    if num_ignored:
        prediction = np.where(ignored, IGNORE_INDEX, prediction)
    found = find_objects(prediction, IGNORE_INDEX - 1), find_objects(reference, IGNORE_INDEX - 1)
    for label, classes in _classes(labels).items():
        box = _union([boxes[i - 1] for boxes in found for i in classes], reference.ndim)
        if probabilities is not None:
            box = widened(box, reference.shape)
        yield (
            label,
            Comparison(
                _mask(prediction[box], classes),
                _mask(reference[box], classes),
                spacing,
                voxel_volume=voxel_volume,
                num_voxels=reference.size - num_ignored,
                diagonal=diagonal_of(reference.shape, spacing),
                probability=_probability(probabilities, classes, box, ignored),
            ),
        )


def _mask(indices: Indices, classes: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which voxels are of one of the classes."""
    if len(classes) == 1:
        only: NDArray[np.bool_] = indices == classes[0]
        return only
    wanted = np.zeros(IGNORE_INDEX + 1, np.bool_)
    wanted[list(classes)] = True
    return wanted[indices]


def _probability(
    probabilities: Probabilities | None,
    classes: Sequence[int],
    box: Box,
    ignored: NDArray[np.bool_],
) -> Probabilities | None:
    """Return the probability of any of the classes in the box; NaN where nothing counts."""
    if probabilities is None:
        return None
    together = sum((probabilities[i][box] for i in classes[1:]), probabilities[classes[0]][box])
    return np.where(ignored[box], np.nan, together)


def _union(boxes: Sequence[Box | None], dims: int) -> Box:
    """Return the smallest box around all boxes; one without voxels when there are none."""
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 0),) * dims
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*present, strict=True)
    )


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with None in place of NaN, which JSON cannot say."""
    missing = (key for key, value in data.items() if isinstance(value, float) and math.isnan(value))
    return dict(data) | dict.fromkeys(missing)
