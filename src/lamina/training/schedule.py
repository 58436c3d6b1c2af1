"""How far a run has come, and what the learning rate is there."""

import math
import time
from dataclasses import dataclass

from lamina.training.config import Optimiser, Stages
from lamina.training.processes import largest, place


@dataclass
class Clock:
    """Measures a run by steps, by time, or by both; time goes on counting after a resume."""

    max_steps: int | None
    """Steps of the whole run, if it has a number of epochs."""
    time_budget_s: float | None
    """Seconds of the whole run, if it has a time budget."""
    started: float
    """Reading of ``time.monotonic()`` when this process began, less what came before a resume."""
    reserve_s: float = 0.0
    """Seconds to keep for the last validation."""
    agreed_s: float | None = None
    """What several processes take for the time, lest they decide differently."""

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on the run, before a resume included."""
        return time.monotonic() - self.started if self.agreed_s is None else self.agreed_s

    def agree(self) -> None:
        """Have all processes of the run read the same time until they agree again."""
        self.agreed_s = None
        if place()[1] > 1:
            self.agreed_s = largest(self.elapsed_s)

    def progress(self, step: int) -> float:
        """Return how much of the run is behind, 0 to 1: by steps or by time, the larger."""
        shares = [0.0]
        if self.max_steps:
            shares.append(step / self.max_steps)
        if self.time_budget_s:
            shares.append(self.elapsed_s / max(1e-9, self.time_budget_s - self.reserve_s))
        return min(1.0, max(shares))

    def remaining_s(self, step: int) -> float | None:
        """Return the seconds that the rest will take at the present pace; ``None`` at the start."""
        done = self.progress(step)
        return self.elapsed_s * (1 / done - 1) if done > 0 else None


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
