"""Single cases of an evaluation, worst to best, as a page shows them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.figures import number, shown_metrics
from lamina.evaluation.metrics import Metric
from lamina.evaluation.scores import Scores
from lamina.geometry import Affine, spacing_of
from lamina.report.mesh import surfaces_of
from lamina.report.overlay import css_colours
from lamina.report.scene import pack_scene
from lamina.report.sections import Section, draw_sections, window_told
from lamina.volume import Volume

Rank = Literal["worst", "median", "best"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One case to be looked at."""

    case_id: str
    rank: Rank
    reference: NDArray[np.uint8]
    """Class indices ``(1, *S)``, background where the truth is unknown."""
    predicted: NDArray[np.uint8]
    """Likewise."""
    affine: Affine
    image: Volume | None
    """The scan on the same grid, where it can still be read."""
    ct: bool | None = None
    """Whether it is a CT, where that is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One case as the page shows it."""

    case_id: str
    rank: Rank
    score: str
    """By which it is ranked, such as ``Dice 0.912``."""
    telling: Sequence[Section]
    strip: Sequence[Section]
    window: str
    legend: Mapping[str, str]
    rows: Sequence[tuple[str, Sequence[str]]]
    """Structure and its scores in this case."""
    scene: int | None
    far_mm: float = 0.0


def ranked(scores: Scores) -> dict[Rank, str]:
    """Return the cases with the lowest, the middle and the highest mean Dice.

    Where Dice was not measured, it is by the first metric that has a better direction.
    """
    chosen = _ranking(scores)
    if chosen is None:
        return {}
    means = scores.case_means(chosen.name)
    order = sorted(means, key=lambda case: means[case], reverse=not chosen.higher_is_better)
    places: dict[Rank, int] = {"worst": 0, "best": len(order) - 1, "median": len(order) // 2}
    found: dict[str, Rank] = {}
    for rank, place in places.items():
        if order:
            found.setdefault(order[place], rank)
    return {found[case]: case for case in order if case in found}


def ranked_by(scores: Scores) -> str:
    """Return the name of the metric that cases are ranked by; empty where nothing has a rank."""
    metric = _ranking(scores)
    return metric.title if metric else ""


def _ranking(scores: Scores) -> Metric | None:
    """Return the metric that cases are ranked by."""
    directed = [m for m in scores.measures if m.higher_is_better is not None]
    return next(iter(sorted(directed, key=lambda metric: metric.name != "dice")), None)


def _score(case: str, scores: Scores) -> str:
    metric = _ranking(scores)
    if metric is None:
        return ""
    value = number(scores.case_means(metric.name).get(case, math.nan), metric)
    return f"{metric.title} {value} {metric.unit}".strip()


def show(pair: Pair, scores: Scores, scenes: list[dict[str, Any]]) -> Shown:
    """Draw a case; its surfaces, where it has any, are added to ``scenes``."""
    colours = css_colours(scores.labels)
    occurring = np.union1d(np.unique(pair.reference), np.unique(pair.predicted))
    drawn = {
        index: (name, colours[name])
        for index, name in enumerate(scores.labels.foreground, start=1)
        if index in occurring
    }
    telling: list[Section] = []
    strip: list[Section] = []
    if pair.image is not None:
        telling, strip = draw_sections(pair.image, pair.reference, pair.predicted, drawn, pair.ct)
    scene, far = None, 0.0
    if pair.reference.ndim == 4 and scores.unit == "mm" and drawn:
        reference, predicted = (
            surfaces_of(indices[0], pair.affine, scores.labels)
            for indices in (pair.reference, pair.predicted)
        )
        scene = len(scenes)
        scenes.append(pack_scene(reference, predicted, max(spacing_of(pair.affine, 3))))
        far = scenes[-1]["far_mm"]
    return Shown(
        case_id=pair.case_id,
        rank=pair.rank,
        score=_score(pair.case_id, scores),
        telling=telling,
        strip=strip,
        window=window_told(pair.image, pair.ct) if pair.image else "",
        legend=dict(drawn.values()),
        rows=_rows_of(pair.case_id, scores),
        scene=scene,
        far_mm=far,
    )


def _rows_of(case: str, scores: Scores) -> list[tuple[str, list[str]]]:
    present = [r for r in scores.rows if r.case == case and r.rule != "both empty"]
    values = {(row.label, row.metric): row.value for row in present}
    labels = dict.fromkeys(label for label, _ in values)
    return [
        (label, [number(values[label, m.name], m) for m in shown_metrics(scores)])
        for label in labels
    ]
