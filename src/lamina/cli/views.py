"""Results as people read them, made for 80 columns and more."""

from collections import defaultdict
from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lamina.cli.scores import render_scores
from lamina.cli.units import spoken
from lamina.cli.watch import TOLERABLE_WAITING
from lamina.data.doctor.groups import condensed
from lamina.errors import some

if TYPE_CHECKING:
    from lamina.data.fingerprint import Fingerprint
    from lamina.data.layouts.nnunet_export import Export
    from lamina.data.plan import Plan
    from lamina.workflows.cross_validation import CrossValidation
    from lamina.workflows.cross_validation.postprocessing import Choice
    from lamina.workflows.demo import Demonstration
    from lamina.workflows.doctor import Diagnosis
    from lamina.workflows.import_weights import Imported
    from lamina.workflows.plan import Replanning
    from lamina.workflows.predict import Prediction
    from lamina.workflows.prepare import Preparation
    from lamina.workflows.train import Training

_NAMED = 3
"""Scans named of those that share an oddity."""
_FINDINGS = 40
"""Findings shown of a dataset."""
_STYLES = {"error": "bold red", "warning": "yellow", "note": "blue"}


def preparation(result: "Preparation") -> tuple[RenderableType, ...]:
    """Say what was found, what is odd about it, what was decided, and what comes next."""
    patients = len({case.group for case in result.cohort.cases})
    return (
        f"{result.cohort.name}: {len(result.cohort.cases)} scans of {patients} patients, "
        f"{len(result.folds)} folds"
        + (f", {len(result.test)} scans kept for the test" if result.test else ""),
        *_leaks(result),
        *_oddities(result.fingerprint),
        *plan(result.plan),
        f"Prepared in {result.work}",
        f"Next: lamina train {quote(str(result.work))} --out RUN",
    )


def planned(result: "Replanning", explain: bool) -> tuple[RenderableType, ...]:
    """Show a plan, what has changed in it, and with ``explain`` the reasons."""
    changed = ", ".join(name.replace("_", " ") for name in result.changed)
    return (
        *([f"Changed: {changed}"] if changed else []),
        *plan(result.plan, explain),
        f"Next: lamina train {quote(str(result.work))} --out RUN",
    )


def plan(decided: "Plan", explain: bool = True) -> tuple[RenderableType, ...]:
    """Show every choice, with its reason, what a run will take, and what the budget cost."""
    table = Table("Choice", "Value", *["Because"] * explain, box=SIMPLE_HEAD)
    shown = {
        "orientation": decided.orientation,
        "target_spacing": f"{_times(decided.target_spacing)} {decided.unit}",
        "normalisation": "\n".join(
            f"{channel}: {how.scheme}"
            for channel, how in zip(decided.channels, decided.normalisation, strict=True)
        ),
        "region_based": "yes" if decided.region_based else "no",
        "network": "\n".join(
            (decided.network, *(f"{k}: {v}" for k, v in decided.network_options.items()))
        ),
        "slice_axis": "none" if decided.slice_axis is None else str(decided.slice_axis),
        "patch_size": " x ".join(map(str, decided.patch_size)),
        "batch_size": str(decided.batch_size),
        "precision": decided.precision,
        "channels_last": "yes" if decided.channels_last else "no",
        "mirror_axes": ", ".join(map(str, decided.mirror_axes)) or "none",
        "steps_per_epoch": str(decided.steps_per_epoch),
        "epochs": str(decided.epochs),
    }
    for name, value in shown.items():
        because = [Text(decided.reasons.get(name, ""))] * explain
        table.add_row(name.replace("_", " "), Text(value), *because)
    takes = decided.estimates
    return (
        table,
        f"A run takes about {spoken(takes['training_s'])} here, {spoken(takes['epoch_s'])} an "
        f"epoch, and {takes['training_memory_gb']:.2g} GB of memory.",
        *(["A larger budget would allow:"] if explain and decided.given_up else []),
        *([f"  {sentence}" for sentence in decided.given_up] if explain else []),
    )


def _times(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)


def training(result: "Training") -> tuple[str, ...]:
    """Say what a run reached, and what comes next."""
    why = f", stopped: {result.stopped_because}" if result.stopped_because else ""
    return (
        f"Best validation Dice {result.best_dice:.4f}, in epoch {result.best_epoch + 1} of "
        f"{result.epochs}; {spoken(result.seconds)}{why}",
        *(
            [f"Steps waited for patches {result.waiting:.0%} of their time; try --set workers=N"]
            if result.waiting > TOLERABLE_WAITING
            else []
        ),
        f"Model: {result.bundle}",
        f"Curves and pictures: tensorboard --logdir {quote(str(result.run))}",
        f"Next: lamina predict --model {quote(str(result.run))} --split val --out SEGMENTATIONS",
    )


def cross_validation(result: "CrossValidation") -> tuple[RenderableType, ...]:
    """Show what single folds reached, the out-of-fold scores, and what became of them."""
    folds = ", ".join(f"{fold}: {dice:.4f}" for fold, dice in result.best_dice.items())
    head = f"Best validation Dice by fold: {folds or 'none yet'}"
    if result.scores is None:
        return (head, f"Stopped: {result.stopped_because}; --resume goes on.")
    return (
        head,
        render_scores(result.scores),
        *_postprocessing(result.postprocessing),
        f"Segmentations, out of fold: {result.run / 'out_of_fold'}",
        f"Model: {result.bundle}, the ensemble of {len(result.best_dice)}",
        f"Next: lamina predict --model {quote(str(result.run))} --input SCANS --out SEGMENTATIONS",
    )


def _postprocessing(choice: "Choice") -> list[str]:
    if not choice.steps:
        return ["Postprocessing: none helps."]
    return [
        f"Postprocessing: {step['operation'].replace('_', ' ')} of {step['structure']}, "
        f"Dice {step['dice_before']:.4f} to {step['dice_after']:.4f}"
        for step in choice.steps
    ]


def prediction(result: "Prediction") -> str:
    """Say how many scans were segmented."""
    done = sum(outcome.segmentation is not None for outcome in result.outcomes)
    seconds = sum(outcome.seconds for outcome in result.outcomes)
    return f"{done} of {len(result.outcomes)} scans segmented in {spoken(seconds)}: {result.out}"


def demonstration(result: "Demonstration") -> tuple[RenderableType, ...]:
    """Show the scores, and say where to look."""
    return (
        render_scores(result.scores),
        f"Picture: {result.overlay}",
        f"Model: {result.training.bundle}",
    )


def diagnosis(result: "Diagnosis") -> tuple[RenderableType, ...]:
    """Say what is wrong with a dataset, the gravest first, and what was mended."""
    counts = ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in result.counts.items())
    table = Table("", "Case", "What was found", box=SIMPLE_HEAD)
    ranked = condensed(result.findings, len(result.cohort.cases))
    for finding in ranked[:_FINDINGS]:
        said = Text(finding.message).append(f" {finding.remedy}", style="dim")
        mark = Text(finding.severity, style=_STYLES[finding.severity])
        table.add_row(mark, Text(finding.case or "all"), said)
    rest = len(ranked) - _FINDINGS
    return (
        f"{result.cohort.name}: {len(result.cohort.cases)} scans, {counts}",
        *([table] if ranked else []),
        *([f"  and {rest} more: see --report or --json"] if rest > 0 else []),
        *([_changes(result)] if result.changes else []),
        *([f"Mended copy: {result.mended}"] if result.mended else []),
        *([f"Report: {result.report}"] if result.report else []),
    )


def _changes(result: "Diagnosis") -> Table:
    """Show what a mended copy differs in."""
    title = "In the mended copy" if result.mended else "What --fix OUT would do"
    table = Table("Case", title, "Because", box=SIMPLE_HEAD)
    for change in result.changes:
        table.add_row(Text(change.case or "all"), change.repair.replace("_", " "), Text(change.why))
    return table


def converted(result: "Export") -> tuple[str, ...]:
    """Say what was written for nnU-Net, and which label values became others."""
    revalued = ", ".join(f"{old} is {new}" for old, new in result.revalued.items())
    return (
        f"{len(result.cohort.cases)} scans; {result.num_rewritten} files were "
        "written anew, the others linked or copied",
        *([f"Label values that changed: {revalued}"] if revalued else []),
        f"Dataset: {result.out}",
    )


def imported(result: "Imported") -> tuple[str, ...]:
    """Say what a checkpoint became, and what of it was not needed."""
    left = [f"Not needed: {', '.join(result.left_over)}"] if result.left_over else []
    return (
        f"{result.network}: all {result.parameters:,} parameters found",
        *left,
        f"Model: {result.out}",
    )


def _leaks(result: "Preparation") -> list[str]:
    """Name the first patients that an accepted split divides."""
    more = len(result.leaks) - _NAMED
    named = [f"  {leak.message}" for leak in result.leaks[:_NAMED]]
    return named + ([f"  and {more} more are divided."] if more > 0 else [])


def _oddities(fingerprint: "Fingerprint") -> list[str]:
    """Group the scans by what is odd about them."""
    scans = defaultdict(list)
    for facts in fingerprint.cases:
        for oddity in facts.oddities:
            scans[oddity].append(facts.case_id)
    return [f"  {oddity}: {some(ids, _NAMED)}" for oddity, ids in scans.items()]
