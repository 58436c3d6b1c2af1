"""Scores that an earlier evaluation left, read back."""

import math
from pathlib import Path

from lamina.errors import FileError
from lamina.evaluation.metrics import METRICS, Unit
from lamina.evaluation.protocols import PROTOCOLS
from lamina.evaluation.scores import Scores
from lamina.evaluation.summary import Score
from lamina.files import read_json
from lamina.labels import LabelSet


def read_scores(path: Path) -> Scores:
    """Read the ``scores.json`` that :meth:`~lamina.evaluation.scores.Scores.write` wrote.

    Raises:
        FileError: It is missing, damaged, or something else.
        LabelError: Its labels contradict themselves.
    """
    data = read_json(path)
    try:
        unit: Unit = data["unit"]
        protocol = data.get("protocol")
        known = PROTOCOLS.get(protocol).metrics if protocol else map(METRICS.get, METRICS)
        names = {metric.measured_in(unit).name: metric.name for metric in known}
        return Scores(
            labels=LabelSet.from_dict(data["labels"]),
            metrics=tuple(names[name] for name in data["definitions"] if name in names),
            rows=tuple(
                Score(**row | {"value": math.nan if row["value"] is None else row["value"]})
                for row in data["rows"]
            ),
            failures=data["failures"],
            not_predicted=tuple(data["not_predicted"]),
            unit=unit,
            protocol=protocol,
            predictions=data.get("predictions", ""),
            references=data.get("references", ""),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise FileError(
            f"{path}: is not as an evaluation wrote it ({error!r}).", remedy="Evaluate again."
        ) from error
