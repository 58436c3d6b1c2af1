"""Validation: whole cases of a fold are segmented and scored, and how long that will take."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lamina.data.cache import PreparedCase
from lamina.data.plan import Plan
from lamina.evaluation.scores import Scores, score_case
from lamina.evaluation.summary import Score
from lamina.inference.backend import TorchNetwork
from lamina.inference.predictor import segment_prepared
from lamina.inference.windows import starts_along
from lamina.training.callbacks import Validate
from lamina.training.config import TrainConfig
from lamina.training.processes import shared_out

_OF_A_STEP = 0.4
"""Share of the time of a training step, per voxel, that a validation is guessed to take: a forward
pass is a third, to which come joining windows and scoring."""


def validator_of(
    plan: Plan,
    cases: list[PreparedCase],
    select_by: str,
    see: Callable[[str, NDArray[np.uint8]], None] = lambda case_id, found: None,
) -> Validate:
    """Return the scoring of whole validation cases by sliding window, on the prepared grid.

    The processes of a run share the cases; the first one has the first case.

    Args:
        plan: How the network sees a case.
        cases: The validation cases.
        select_by: A metric to compute beside Dice.
        see: Called with each case's id and the class indices ``(1, *S)`` found in it, by the
            process that scores it.
    """
    metrics = tuple(dict.fromkeys(("dice", select_by)))

    def score(case: PreparedCase, runner: TorchNetwork) -> list[Score]:
        found = segment_prepared(runner, case.read(), plan)
        see(case.case_id, found[None])
        reference = case.label[0]
        return score_case(case.case_id, found, reference, plan.labels, case.spacing, metrics)

    def validate(network: nn.Module) -> dict[str, float]:
        modes = [(part, part.training) for part in network.modules()]  # frozen parts keep theirs
        network.eval()
        runner = TorchNetwork(network, str(next(network.parameters()).device))
        rows = shared_out(partial(score, runner=runner), cases)
        for part, was_training in modes:
            part.training = was_training
        scores = Scores(labels=plan.labels, metrics=metrics, rows=tuple(chain(*rows)))
        summary = scores.summary()
        by_label = {f"dice/{name}": summary[name]["dice"].mean for name in summary}
        found_any = {name: value for name, value in by_label.items() if value == value}
        means = {name: _number(scores.mean_foreground(name)) for name in metrics}
        return means | found_any

    return validate


def validation_steps(config: TrainConfig, plan: Plan, cases: Sequence[PreparedCase]) -> float:
    """Guess how many training steps the validation of prepared cases lasts, by the voxels seen."""
    assert config.patch_size is not None
    assert config.batch_size is not None
    windows = 0
    for case in cases:
        sides = zip(case.label.shape[1:], plan.roi_size, strict=True)
        windows += prod(len(starts_along(size, side, plan.overlap)) for size, side in sides)
    seen = windows * prod(plan.roi_size)
    return _OF_A_STEP * seen / (config.batch_size * prod(config.patch_size))


def _number(score: float) -> float:
    """Count a fold without any foreground as zero, so that epochs can still be ranked."""
    return score if score == score else 0.0
