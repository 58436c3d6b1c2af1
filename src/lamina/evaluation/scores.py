"""Scores of a set of segmentations: one row per case, label and metric."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lamina import __version__
from lamina.errors import GeometryError
from lamina.evaluation.metrics import Metric, Unit
from lamina.evaluation.protocols import PROTOCOLS, find_metric
from lamina.evaluation.structures import Indices, Probabilities, classes_of, comparisons
from lamina.evaluation.summary import Score, Summary, summarise
from lamina.files import write_json, write_text
from lamina.labels import LabelSet

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
        for label, comparison in comparisons(
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
    version: str = __version__
    """Of the program that measured them; empty of scores that do not say."""

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
            for label in classes_of(self.labels)
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
            "version": self.version,
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


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with None in place of NaN, which JSON cannot say."""
    missing = (key for key, value in data.items() if isinstance(value, float) and math.isnan(value))
    return dict(data) | dict.fromkeys(missing)
