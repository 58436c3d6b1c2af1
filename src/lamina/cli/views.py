"""Results as tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from lamina.data.plan import Plan
    from lamina.workflows.models import ModelFacts
    from lamina.workflows.predict import Prediction
    from lamina.workflows.prepare import Preparation
    from lamina.workflows.train import Training


def preparation(result: "Preparation") -> RenderableType:
    """Show what was found and decided, and why."""
    count, patients = len(result.cohort.cases), len({c.group for c in result.cohort.cases})
    lines: list[RenderableType] = [
        f"[bold]{escape(result.cohort.name)}[/]: {count} scans of {patients} patients, "
        f"{len(result.folds)} folds, in {escape(str(result.work))}",
        plan(result.plan),
    ]
    odd = {facts.case_id: facts.oddities for facts in result.fingerprint.cases if facts.oddities}
    if odd:
        lines.append(
            problems("Worth a look", {case: "; ".join(what) for case, what in odd.items()})
        )
    if result.excluded:
        lines.append(problems("Left out", result.excluded))
    return Group(*lines)


def plan(decided: "Plan") -> Table:
    """Show every choice with its reason."""
    table = Table("Choice", "Value", "Because", title="Plan", title_justify="left")
    shown = {
        "orientation": decided.orientation,
        "target_spacing": " x ".join(f"{mm:g}" for mm in decided.target_spacing) + " mm",
        "normalisation": ", ".join(
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
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), escape(value), escape(decided.reasons.get(name, "")))
    return table


def training(result: "Training") -> RenderableType:
    """Show what a run reached and what to do next."""
    why = f" ({result.stopped_because})" if result.stopped_because else ""
    return Group(
        f"Best validation Dice [bold]{result.best_dice:.4f}[/] in epoch {result.best_epoch} of "
        f"{result.epochs}, {result.seconds / 60:.1f} minutes{why}",
        f"Model: {escape(str(result.bundle))}",
    )


def prediction(result: "Prediction") -> RenderableType:
    """Show how many scans were segmented, and which were not."""
    done = len(result.outcomes) - len(result.failures)
    seconds = sum(outcome.seconds for outcome in result.outcomes)
    line = f"{done} of {len(result.outcomes)} scans segmented in {seconds:.1f} s, in "
    lines: list[RenderableType] = [line + escape(str(result.out))]
    if result.failures:
        lines.append(problems("Failed", result.failures))
    return Group(*lines)


def models(facts: list["ModelFacts"]) -> Table:
    """Show the registered networks."""
    table = Table("Model", "Dimensions", "Parameters", "Described in")
    for fact in facts:
        dims = ", ".join(f"{d}D" for d in fact.spatial_dims)
        table.add_row(fact.name, dims, f"{fact.parameters:,}", escape(fact.source))
    return table


def problems(title: str, found: Mapping[str, str]) -> Table:
    """Show what is wrong, case by case."""
    table = Table("Case", "What", title=f"{title}: {len(found)}", title_justify="left")
    for case, what in found.items():
        table.add_row(escape(case), escape(what))
    return table
