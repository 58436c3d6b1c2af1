"""How far a run has come, and what the learning rate is there."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from statistics import fmean

from lamina.training.config import Optimiser, Stages
from lamina.training.processes import largest, place

_MARGIN = 1.2
"""Time that is kept for the end of a run, as a share of what it is foreseen to take."""
_LATELY = 16
"""Steps whose mean is the present pace."""
_FILES = 3
"""Files as large as a checkpoint that the end of a run writes: the last, the best, the model."""


@dataclass
class Ending:
    """How long the end of a run takes: its last validation, and what is then written.

    Foreseen from the longest of each so far; a validation in proportion to the present pace where
    steps have become slower since, as on a machine that others have begun to use.
    """

    steps: float = 0.0
    """As many steps as a validation lasts: the most so far, before the first one a guess."""
    validation_s: float = 0.0
    """The longest so far; 0 before the first."""
    saving_s: float = 0.0
    """The longest that writing a checkpoint took so far."""

    def validated(self, took_s: float, pace_s: float) -> None:
        """Learn from a validation, the first of which replaces the guess."""
        steps = took_s / pace_s if pace_s else 0.0
        self.steps = max(steps, self.steps) if self.validation_s else steps
        self.validation_s = max(self.validation_s, took_s)

    def foreseen_s(self, pace_s: float) -> float:
        """Return the seconds to keep for it, where steps take ``pace_s``."""
        validation_s = max(self.validation_s, self.steps * pace_s)
        return _MARGIN * (validation_s + _FILES * self.saving_s)


@dataclass
class Clock:
    """Measures a run by steps, by time, or by both; time goes on counting after a resume.

    A time budget holds the end of the run, too; what that takes can only be foreseen.
    """

    max_steps: int | None
    """Steps of the whole run, if it has a number of epochs."""
    time_budget_s: float | None
    """Seconds of the whole run, if it has a time budget."""
    started: float
    """Reading of ``time.monotonic()`` when this process began, less what came before a resume."""
    ending: Ending = field(default_factory=Ending)
    """What is known of the end of the run."""
    agreed_s: float | None = None
    """What several processes take for the time, lest they decide differently."""
    steps_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LATELY))
    """What the latest steps took."""
    first_step_s: float = 0.0
    """What went by before the first step, which the schedule leaves out."""
    began_s: float | None = None
    """When the present step began; not known of the first, which warms up and tells no pace."""

    @property
    def last_step(self) -> int:
        """Steps of the whole run; where time alone ends it, more than any run has."""
        return self.max_steps or 10**9

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on the run, before a resume included."""
        return time.monotonic() - self.started if self.agreed_s is None else self.agreed_s

    def agree(self) -> None:
        """Have all processes of the run read the same time until they agree again."""
        self.agreed_s = None
        if place()[1] > 1:
            self.agreed_s = largest(self.elapsed_s)

    def begin_training(self) -> None:
        """Have the schedule begin here: what came before was no training."""
        self.first_step_s = self.elapsed_s

    def begin_step(self) -> None:
        """Measure the pace from here: what came before was no step."""
        self.began_s = self.elapsed_s

    def end_step(self) -> None:
        """Note what the step took; the processes of a run agree on it."""
        self.agree()
        if self.began_s is not None:
            self.steps_s.append(self.elapsed_s - self.began_s)

    def validated(self, since_s: float) -> None:
        """Note what a validation took that began at a time; the processes agree on it."""
        self.agree()
        self.ending.validated(self.elapsed_s - since_s, self._pace_s)

    def saved(self, since_s: float) -> None:
        """Note what writing a checkpoint took, likewise."""
        self.agree()
        self.ending.saving_s = max(self.ending.saving_s, self.elapsed_s - since_s)

    @property
    def _pace_s(self) -> float:
        return fmean(self.steps_s) if self.steps_s else 0.0

    @property
    def _training_s(self) -> float:
        """Return the part of the time budget in which another step may begin."""
        assert self.time_budget_s is not None
        reserve_s = self._pace_s + self.ending.foreseen_s(self._pace_s)
        if not self.ending.validation_s:  # a guess may be wrong: half is for learning
            reserve_s = min(reserve_s, self.time_budget_s / 2)
        return max(1e-9, self.time_budget_s - reserve_s)

    def progress(self, step: int) -> float:
        """Return how much of the run is behind, 0 to 1: by steps or by time, the larger."""
        shares = [0.0]
        if self.max_steps:
            shares.append(step / self.max_steps)
        if self.time_budget_s:
            before_s = min(self.first_step_s, self._training_s / 2)
            shares.append((self.elapsed_s - before_s) / (self._training_s - before_s))
        return min(1.0, max(shares))

    @property
    def is_near_end(self) -> bool:
        """Whether a validation now would leave no time for another step before the last one.

        Never before the first one, which tells whether what was guessed of it was right.
        """
        if not self.time_budget_s or not self.ending.validation_s:
            return False
        validation_s = self.ending.foreseen_s(self._pace_s)
        return self.elapsed_s + validation_s >= self._training_s

    def remaining_s(self, step: int) -> float | None:
        """Return the seconds that the rest will take at the present pace; ``None`` at the start."""
        done = self.progress(step)
        return (self.elapsed_s - self.first_step_s) * (1 / done - 1) if done > 0 else None


def learning_rate(optimiser: Optimiser, progress: float) -> float:
    """Return the learning rate at ``progress`` 0..1: linear warm-up, then the schedule."""
    if progress < optimiser.warmup:
        return optimiser.lr * progress / optimiser.warmup
    done = (progress - optimiser.warmup) / (1 - optimiser.warmup)
    if optimiser.schedule == "constant":
        return optimiser.lr
    if optimiser.schedule == "step":
        return optimiser.lr * staged(optimiser.stages, done)
    left = (
        (1 + math.cos(math.pi * done)) / 2
        if optimiser.schedule == "cosine"
        else (1 - done) ** optimiser.power
    )
    return optimiser.lr * (optimiser.final_lr + (1 - optimiser.final_lr) * left)


def staged(stages: Stages, progress: float) -> float:
    """Return the share that is left at ``progress`` 0..1; the last part lasts to the very end."""
    # A part that ends at a step ends there in spite of rounding.
    parts_done = math.floor(progress * stages.count + 1e-9)
    return stages.factor ** min(parts_done, stages.count - 1)
