"""One portable model made of several trained ones: an ensemble of them."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import torch

from lamina.bundle import VIT, Bundle, joined, load_bundle, own_weights, transformer_weights
from lamina.errors import TrainingError
from lamina.evaluation.scores import Scores
from lamina.evaluation.statistics.intervals import Interval, caution_of
from lamina.evaluation.statistics.means import MEAN, intervals_of
from lamina.files import sha256
from lamina.folders.evaluation import patients_of, recorded_patients
from lamina.folders.run import RunFolder


def ensemble(
    runs: Sequence[RunFolder],
    metrics: dict[str, Any],
    postprocessing: tuple[dict[str, Any], ...] = (),
) -> Bundle:
    """Return a model that averages the logits of the models of several runs.

    Args:
        runs: At least one; a single one gives an ordinary model.
        metrics: Scores to keep in it.
        postprocessing: Steps that it is to apply.

    Raises:
        BundleError: A run has no readable model.
        TrainingError: The runs are of different networks or plans.
    """
    members = [load_bundle(run.bundle_file) for run in runs]
    first = members[0]
    for run, other in zip(runs, members, strict=True):
        _check_alike(run, first, other)
    many = {"members": len(members)} if len(members) > 1 else {}
    weights = joined([own_weights(member) for member in members])
    told = {run.root.name: other.training for run, other in zip(runs, members, strict=True)}
    return replace(
        first,
        network=first.network | many,
        weights=weights | _carried(first),
        training={
            "config": first.training["config"],
            "members": {
                name: {key: value for key, value in training.items() if key != "config"}
                for name, training in told.items()
            },
        },
        metrics=metrics,
        provenance=first.provenance
        | {"members": {run.root.name: sha256(run.bundle_file) for run in runs}},
        postprocessing=postprocessing,
    )


def metrics_of(scores: Scores, measured_on: str) -> dict[str, Any]:
    """Return Dice per structure and its mean as a bundle keeps them."""
    patients = patients_of(scores.cases, recorded_patients(Path(scores.predictions)))
    found = {label: row["dice"] for label, row in intervals_of(scores, patients, ("dice",)).items()}
    told = {label: _told(interval) for label, interval in found.items() if not interval.missing}
    whole = {"mean_dice": told.pop(MEAN)} if MEAN in told else {}
    sure = {"intervals": {"dice": told, **whole}} if told or whole else {}
    few = caution_of(each.n for each in found.values())
    return {
        "mean_dice": _number(scores.mean_foreground("dice")),
        "dice": {name: _number(row["dice"].mean) for name, row in scores.summary().items()},
        **sure,
        "measured_on": measured_on,
        **({"caution": few} if few else {}),
    }


def _told(interval: Interval) -> dict[str, float]:
    """Return an interval with the mean it belongs to, which cases may differ from."""
    return {name: getattr(interval, name) for name in ("n", "mean", "low", "high")}


def _number(score: float) -> float | None:
    return None if isnan(score) else score


def _carried(bundle: Bundle) -> dict[str, torch.Tensor]:
    return {f"{VIT}{name}": tensor for name, tensor in transformer_weights(bundle).items()}


def _check_alike(run: RunFolder, first: Bundle, other: Bundle) -> None:
    drawn, drawn_here = transformer_weights(first), transformer_weights(other)
    same_maps = drawn.keys() == drawn_here.keys() and all(
        torch.equal(tensor, drawn_here[name]) for name, tensor in drawn.items()
    )
    if other.network != first.network or other.plan != first.plan or not same_maps:
        raise TrainingError(
            f"{run.root}: was trained as another network, by another plan or on other attention "
            "maps than the first fold.",
            remedy="Train all folds anew, into another --out.",
        )
