"""Results as people read them, made for 80 columns and more."""

from collections import defaultdict
from itertools import groupby
from shlex import quote
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lamina.cli.units import spoken
from lamina.evaluation.table import render_scores

if TYPE_CHECKING:
    from lamina.data.fingerprint import Fingerprint
    from lamina.data.plan import Plan
    from lamina.workflows.demo import Demonstration
    from lamina.workflows.import_weights import Imported
    from lamina.workflows.models import ModelFacts
    from lamina.workflows.predict import Prediction
    from lamina.workflows.prepare import Preparation
    from lamina.workflows.train import Training

_NAMED = 3
"""Scans named of those that share an oddity."""


def preparation(result: "Preparation") -> tuple[RenderableType, ...]:
    """Say what was found, what is odd about it, what was decided, and what comes next."""
    patients = len({case.group for case in result.cohort.cases})
    return (
        f"{result.cohort.name}: {len(result.cohort.cases)} scans of {patients} patients, "
        f"{len(result.folds)} folds",
        *_oddities(result.fingerprint),
        plan(result.plan),
        f"Prepared in {result.work}",
        f"Next: lamina train {quote(str(result.work))} --out RUN",
    )


def plan(decided: "Plan") -> Table:
    """Show every choice with its reason."""
    table = Table("Choice", "Value", "Because", box=SIMPLE_HEAD)
    shown = {
        "orientation": decided.orientation,
        "target_spacing": f"{' x '.join(f'{mm:.3g}' for mm in decided.target_spacing)} mm",
        "normalisation": "\n".join(
            f"{channel}: {how.scheme}"
            for channel, how in zip(decided.channels, decided.normalisation, strict=True)
        ),
        "network": decided.network,
        "patch_size": " x ".join(map(str, decided.patch_size)),
        "batch_size": str(decided.batch_size),
        "mirror_axes": ", ".join(map(str, decided.mirror_axes)) or "none",
        "steps_per_epoch": str(decided.steps_per_epoch),
        "epochs": str(decided.epochs),
    }
    why = {**decided.reasons, "network": "The default, or what --model asked for."}
    why["epochs"] += f" They take about {spoken(decided.estimates['training_s'])} here."
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), Text(value), Text(why.get(name, "")))
    return table


def training(result: "Training") -> tuple[str, ...]:
    """Say what a run reached, and what comes next."""
    why = f", stopped: {result.stopped_because}" if result.stopped_because else ""
    return (
        f"Best validation Dice {result.best_dice:.4f}, in epoch {result.best_epoch + 1} of "
        f"{result.epochs}; {spoken(result.seconds)}{why}",
        f"Model: {result.bundle}",
        f"Next: lamina predict --model {quote(str(result.run))} --split val --output SEGMENTATIONS",
    )


def prediction(result: "Prediction") -> str:
    """Say how many scans were segmented."""
    done = len(result.outcomes) - len(result.failures)
    seconds = sum(outcome.seconds for outcome in result.outcomes)
    return f"{done} of {len(result.outcomes)} scans segmented in {spoken(seconds)}: {result.out}"


def demonstration(result: "Demonstration") -> tuple[RenderableType, ...]:
    """Show the scores, and say where to look."""
    return (
        render_scores(result.scores),
        f"Picture: {result.overlay}",
        f"Model: {result.training.bundle}",
    )


def models(facts: list["ModelFacts"]) -> Table:
    """Show networks under their papers, what was counted beside what is printed."""
    table = Table(box=SIMPLE_HEAD, caption="Multiply-accumulates of one image of the size shown.")
    table.add_column("Network", no_wrap=True)
    for header in ("Image", "Parameters", "printed", "GMAC", "printed"):
        table.add_column(header, justify="right")
    for source, members in groupby(sorted(facts, key=lambda fact: fact.source), _source):
        table.add_section()
        table.add_row(Text(source.partition(":")[0], style="bold"))
        for fact in members:
            printed = fact.published
            table.add_row(
                f"  {fact.name}",
                f"{fact.in_channels}→{fact.num_classes}  {_size(fact.size)}",
                f"{fact.parameters:,}",
                (printed and printed.parameters) or "",
                f"{fact.macs / 1e9:.2f}",
                (printed and printed.macs) or "",
            )
    return table


def _size(size: tuple[int, ...]) -> str:
    return f"{size[0]}{'²³'[len(size) - 2]}" if len(set(size)) == 1 else "x".join(map(str, size))


def imported(result: "Imported") -> tuple[str, ...]:
    """Say what a checkpoint became, and what of it was left over."""
    left = [f"Left over: {', '.join(result.left_over)}"] if result.left_over else []
    return (
        f"{result.network}: all {result.parameters:,} parameters found",
        *left,
        f"Model: {result.out}",
    )


def _source(fact: "ModelFacts") -> str:
    return fact.source


def _oddities(fingerprint: "Fingerprint") -> list[str]:
    """Group the scans by what is odd about them."""
    scans = defaultdict(list)
    for facts in fingerprint.cases:
        for oddity in facts.oddities:
            scans[oddity].append(facts.case_id)
    return [
        f"  {oddity}: {', '.join(ids[:_NAMED])}"
        + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")
        for oddity, ids in scans.items()
    ]
