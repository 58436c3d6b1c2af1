"""Which changes to finished segmentations help: tried on predictions of cases no model had seen.

For each structure, stray parts may be removed (all but the largest, or small ones), and then holes
filled. A change is taken where the structure's mean Dice gains at least ``MARGIN`` over all cases
and no fold is worse for it on average, in this structure or any other structure or region.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.scores import score_case
from lamina.folders.pairs import ReadPair, recorded
from lamina.inference.postprocess import Step, postprocess
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows import Progress, no_progress

MARGIN = 0.005
"""Least gain in mean Dice for which a segmentation is changed."""
SMALL = (0.01, 0.1, 0.5)
"""Sizes below which parts are small: shares of the structure where a case has least of it."""

_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One change to one structure, and what it did to the mean Dice of that structure."""

    step: Step
    dice_before: float | None
    """``None`` where no case has the structure, in its reference or its prediction."""
    dice_after: float | None
    worst_fold: float
    """Largest loss of any fold's mean Dice, of any structure or region; 0 or below."""
    num_cases: int
    chosen: bool = False

    @property
    def gain(self) -> float:
        """Gain in mean Dice."""
        return (self.dice_after or 0.0) - (self.dice_before or 0.0)

    @property
    def helps(self) -> bool:
        """Whether it may be chosen."""
        return self.gain >= MARGIN and self.worst_fold >= -_ROUNDING

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, as a bundle keeps it of the steps that were chosen."""
        figures = {name: value for name, value in asdict(self).items() if name != "step"}
        return asdict(self.step) | figures


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The changes that help, all that were tried, and what the chosen ones together amount to."""

    trials: tuple[Trial, ...] = ()
    dice: Mapping[str, float | None] | None = None
    """Mean Dice of each structure and region with all chosen steps; of the very cases that they
    were chosen on, so a little too good."""

    @property
    def steps(self) -> tuple[dict[str, Any], ...]:
        """The chosen steps with their figures, in the order in which they are applied."""
        kept = (trial.as_dict() for trial in self.trials if trial.chosen)
        return tuple({n: v for n, v in each.items() if n != "chosen"} for each in kept)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "margin": MARGIN,
            "trials": [trial.as_dict() for trial in self.trials],
            "dice": self.dice,
        }


def choose_postprocessing(
    predictions: Path, folds: Mapping[str, int], progress: Progress = no_progress
) -> Choice:
    """Try changes on out-of-fold predictions.

    Args:
        predictions: Folder that ``predict`` wrote, of a dataset's own scans.
        folds: The fold of each case that is to be looked at: whose model segmented it.
        progress: Told of each case of each round.

    Raises:
        LaminaError: A prediction or its reference cannot be read.
    """
    found, _, labels = recorded(predictions, None)
    pairs = {case: found[case] for case in folds}
    if not pairs:
        return Choice()
    trying = _Trying(pairs, np.array([folds[case] for case in pairs]), labels, progress)
    removals = [
        step
        for name, size in trying.smallest().items()
        for step in (
            *(_step(name, "remove_small", share * size) for share in SMALL),
            _step(name, "largest_component"),
        )
    ]
    first = _best(trying.measure((), removals))
    done = tuple(trial.step for trial in first if trial.chosen)
    holes = [_step(name, "fill_holes") for name in labels.foreground]
    trials = (*first, *_best(trying.measure(done, holes)))
    steps = tuple(trial.step for trial in trials if trial.chosen)
    return Choice(trials=trials, dice=trying.dice(steps))


@dataclass(frozen=True)
class _Trying:
    """The cases that changes are tried on."""

    pairs: Mapping[str, ReadPair]
    folds: NDArray[np.int64]
    """One per case."""
    labels: LabelSet
    progress: Progress

    def smallest(self) -> dict[str, float]:
        """Return the least amount of each structure that a reference has, where any has some."""
        sizes: dict[str, float] = {}
        for read in self.pairs.values():
            _, reference = read()
            counts = np.bincount(reference.array.ravel(), minlength=self.labels.num_classes)
            for index, name in enumerate(self.labels.foreground, start=1):
                if counts[index]:
                    size = float(counts[index] * reference.voxel_volume)
                    sizes[name] = min(size, sizes.get(name, size))
        return sizes

    def measure(self, done: Sequence[Step], candidates: Sequence[Step]) -> list[Trial]:
        """Try each candidate alone, on predictions that ``done`` has changed already."""
        scores = self._scores(done, candidates)
        names = (*self.labels.foreground, *self.labels.regions)
        trials = []
        for step, after in zip(candidates, scores[1:], strict=True):
            column = names.index(step.structure)
            losses = [
                _mean(after[self.folds == fold]) - _mean(scores[0][self.folds == fold])
                for fold in np.unique(self.folds)
            ]
            trials.append(
                Trial(
                    step=step,
                    dice_before=_number(_mean(scores[0])[column]),
                    dice_after=_number(_mean(after)[column]),
                    worst_fold=float(min(0.0, np.nan_to_num(losses).min())),
                    num_cases=len(self.pairs),
                )
            )
        return trials

    def dice(self, steps: Sequence[Step]) -> dict[str, float | None]:
        """Return the mean Dice of each structure and region after all steps."""
        names = (*self.labels.foreground, *self.labels.regions)
        means = _mean(self._scores(steps, ())[0])
        return {name: _number(mean) for name, mean in zip(names, means, strict=True)}

    def _scores(self, done: Sequence[Step], candidates: Sequence[Step]) -> NDArray[np.float64]:
        """Return Dice ``(1 + candidates, cases, structures and regions)``; NaN: not applicable."""
        # Maps of class indices instead of file values: what the pairs are.
        values = {name: i for i, name in enumerate(self.labels.foreground, start=1)}
        labels = LabelSet(values=values, regions=self.labels.regions)
        by_case = []
        for number, (case, read) in enumerate(self.pairs.items(), start=1):
            prediction, reference = read()
            start = postprocess(prediction, labels, done)
            tried = (postprocess(start, labels, [step]) for step in candidates)
            by_case.append([_dice(case, each, reference, labels) for each in (start, *tried)])
            self.progress(number, len(self.pairs), case)
        return np.array(by_case).swapaxes(0, 1)


def _step(structure: str, operation: Any, min_size: float | None = None) -> Step:
    return Step(structure=structure, operation=operation, min_size=min_size)


def _best(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Mark the trial that gains most for each structure, if any helps; the first of equals."""
    chosen: dict[str, Trial] = {}
    for trial in trials:
        rival = chosen.get(trial.step.structure)
        if trial.helps and (rival is None or trial.gain > rival.gain + _ROUNDING):
            chosen[trial.step.structure] = trial
    kept = {trial.step for trial in chosen.values()}
    return tuple(replace(trial, chosen=trial.step in kept) for trial in trials)


def _dice(case: str, found: Volume, reference: Volume, labels: LabelSet) -> list[float]:
    rows = score_case(
        case, found.array[0], reference.array[0], labels, reference.spacing, ("dice",)
    )
    return [row.value for row in rows]


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over cases ``(structures)`` of those to which the metric applies."""
    applies = ~np.isnan(scores)
    counts = applies.sum(0)
    total = np.where(applies, scores, 0.0).sum(0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
