"""One portable model made of several trained ones: an ensemble of them, or the mean of weights."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import torch

from lamina.bundle import (
    VIT,
    Bundle,
    averaged,
    joined,
    load_bundle,
    own_weights,
    save_bundle,
    transformer_weights,
)
from lamina.errors import TrainingError
from lamina.evaluation.scores import Scores
from lamina.evaluation.statistics.intervals import Interval, caution_of
from lamina.evaluation.statistics.means import MEAN, intervals_of
from lamina.files import sha256, write_json
from lamina.folders.evaluation import patients_of, recorded_patients
from lamina.folders.prediction import read_record, write_record
from lamina.folders.run import RunFolder
from lamina.workflows import Progress, no_progress
from lamina.workflows.evaluate import evaluate
from lamina.workflows.own_scans import predict_prepared

SOUP_MARGIN = 0.001
"""Difference of mean Dice on the test scans up to which soup and ensemble are equally good."""
_CANDIDATE = ".candidate.lamina"
"""A soup while it is measured, under a name by which nobody takes it for a run's model."""


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


def cook_soup(
    whole: RunFolder,
    runs: Sequence[RunFolder],
    progress: Progress = no_progress,
    remark: str = "",
) -> dict[str, Any]:
    """Average the weights of several runs; keep the result if it equals them on test scans.

    Every other scan was seen by one of the runs, so nothing else can tell what the mean of their
    weights is worth: networks that were trained apart need not have a mean that works.

    Args:
        whole: Folder of the ensemble, whose manifest lists the test scans.
        runs: Those of the ensemble.
        progress: Told of each scan.
        remark: What to add to what it was measured on.

    Returns:
        Mean Dice of ensemble and soup on the test scans, and whether ``soup/model.lamina`` was
        kept.

    Raises:
        DatasetError: No test scan has a label.
    """
    soup, bundle = RunFolder(whole.root / "soup"), _soup(whole, runs)
    soup.bundle_file.unlink(missing_ok=True)  # of an earlier training
    write_json(soup.manifest_file, whole.manifest())
    candidate = soup.root / _CANDIDATE
    try:
        save_bundle(bundle, candidate)
        together = _tested(whole, whole.bundle_file, whole.root / "test", progress)
        mean = _tested(whole, candidate, soup.root / "test", progress)
    finally:
        candidate.unlink(missing_ok=True)
    dice = [scores.mean_foreground("dice") for scores in (together, mean)]
    offered = holds_up(*dice)
    if offered:
        told = metrics_of(mean, f"{len(mean.cases)} test scans that no member has seen{remark}")
        save_bundle(replace(bundle, metrics=told), soup.bundle_file)
        _sign(soup.root / "test", soup.bundle_file)
    return {
        "test_dice": dict(zip(("ensemble", "soup"), map(_number, dice), strict=True)),
        "margin": SOUP_MARGIN,
        "offered": offered,
    }


def holds_up(ensemble: float, soup: float) -> bool:
    """Tell whether a soup's mean Dice is equal to its ensemble's, or better."""
    return soup > 0 and soup >= ensemble - SOUP_MARGIN


def _soup(whole: RunFolder, runs: Sequence[RunFolder]) -> Bundle:
    """Return the ensemble's plan and postprocessing with one network of mean weights."""
    together = load_bundle(whole.bundle_file)
    members = [own_weights(load_bundle(run.bundle_file)) for run in runs]
    network = {name: told for name, told in together.network.items() if name != "members"}
    return replace(
        together,
        network=network,
        weights=averaged(members) | _carried(together),
        training=together.training | {"weights": "mean of the members'"},
        metrics={},
    )


def _tested(whole: RunFolder, model: Path, out: Path, progress: Progress) -> Scores:
    """Score a model on the scans that are kept for the end."""
    cases, settings = whole.cases("test"), whole.manifest()["settings"]
    predict_prepared(model, out=out, settings=settings, cases=cases, progress=progress)
    return evaluate(out, out=out)


def _sign(out: Path, model: Path) -> None:
    """Let the record of segmentations name the file that the network they are by is kept in."""
    record, digest = read_record(out), sha256(model)
    cases = [entry | {"model": digest} for entry in record["cases"]]
    write_record(out, {"file": model.name, "sha256": digest}, record["labels"], cases)


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
