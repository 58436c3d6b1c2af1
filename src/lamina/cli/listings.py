"""Lists of what there is, networks, shipped models and public datasets, for 80 columns and more."""

from itertools import groupby
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lamina.data.datasets import DatasetDescription, Protocol
    from lamina.workflows.models import ModelFacts
    from lamina.workflows.shipped import ShippedModel


def models(facts: list["ModelFacts"]) -> Table:
    """Show networks under their papers, what was counted beside what is printed."""
    caption = "Multiply-accumulates of one image of the size shown."
    table = Table(box=SIMPLE_HEAD, caption=caption, padding=0)
    table.add_column("Network", overflow="fold")
    for header in ("Image", "Parameters", "printed", "GMAC", "printed"):
        table.add_column(header, justify="right", no_wrap=True)
    for source, members in groupby(sorted(facts, key=lambda fact: fact.source), _source):
        table.add_section()
        table.add_row(Text(source.partition(":")[0], style="bold"))
        for fact in members:
            printed = fact.published
            table.add_row(
                f" {fact.name}",
                f"{fact.in_channels}→{fact.num_classes} {_size(fact.size)}",
                f"{fact.parameters:,}",
                (printed and printed.parameters) or "",
                f"{fact.macs / 1e9:.2f}",
                (printed and printed.macs) or "",
            )
    return table


def shipped(models: "list[ShippedModel]") -> Table:
    """Show trained models, one per row: what each finds in what, and what it was trained on."""
    caption = "lamina predict -m NAME -i SCAN -o OUT. Research only, not a medical device."
    caption += "\nDice: of the validation scans in training, on the prepared grid."
    if any(map(_wants_size, models)):
        caption += "\nImages in mm that do not tell the side of a pixel: add --pixel-size MM."
    table = Table("Model", box=SIMPLE_HEAD, caption=caption, padding=(0, 1, 0, 0))
    table.add_column("Finds\n  in", ratio=2)
    table.add_column("Trained on\n  licence, network", ratio=3)
    table.add_column("Dice", justify="right", no_wrap=True)
    table.add_column("MB\nint8", justify="right", no_wrap=True)
    for model in models:
        sizes = [model.size_bytes, *([model.int8.size_bytes] if model.int8 else [])]
        seen = f"{model.spatial_dims}D{' in mm' if _wants_size(model) else ''}"
        table.add_row(
            model.name,
            Text(f"{', '.join(model.structures)}\n  {seen}: {', '.join(model.channels)}"),
            Text(f"{model.dataset}\n  {model.licence}, {model.network}"),
            "" if model.dice is None else f"{model.dice:.3f}",
            "\n".join(f"{size / 1e6:.1f}" for size in sizes),
        )
    return table


def _wants_size(model: "ShippedModel") -> bool:
    return model.spatial_dims == 2 and model.unit == "mm"


def datasets(described: list["DatasetDescription"]) -> Table:
    """Show public datasets, one per row."""
    table = Table("Dataset", "Modality", box=SIMPLE_HEAD, caption="More: lamina datasets NAME")
    for header in ("Axes", "Channels", "Labels", "Cases"):
        table.add_column(header, justify="right")
    table.add_column("Papers")
    for found in described:
        counts = (found.spatial_dims, len(found.channels), len(found.labels))
        cases = "?" if found.size.cases is None else f"{found.size.cases:,}"
        papers = ", ".join(found.protocols)
        table.add_row(found.name, found.modality, *map(str, counts), cases, papers)
    return table


def dataset(found: "DatasetDescription") -> Table:
    """Show all that is known of one public dataset."""
    table = Table(title=Text(found.title), box=SIMPLE_HEAD, show_header=False, title_justify="left")
    cases = "?" if found.size.cases is None else f"{found.size.cases:,}"
    rows = {
        "name": found.name,
        "task": found.task,
        "channels": ", ".join(found.channels),
        "labels": ", ".join(f"{name} {value}" for name, value in found.labels.items()),
        "regions": ", ".join(found.regions),
        "cases": f"{cases}. {found.size.note}",
        "licence": found.licence,
        "where": found.where,
        "citation": found.citation,
        "download": found.download,
        "layout": found.layout or "none of Lamina's",
        **{paper: _protocol(protocol) for paper, protocol in found.protocols.items()},
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    return table


def _protocol(protocol: "Protocol") -> str:
    sides = {side: getattr(protocol, f"num_{side}") for side in ("train", "val", "test", "folds")}
    counts = ", ".join(f"{count} {side}" for side, count in sides.items() if count)
    lists = protocol.lists and f"Lists: {protocol.lists}."
    return "  ".join(part for part in (counts and f"{counts}.", protocol.note, lists) if part)


def _size(size: tuple[int, ...]) -> str:
    powers = [(side, len(list(equal))) for side, equal in groupby(size)]
    return "x".join(f"{side}{('', '²', '³')[power - 1]}" for side, power in powers)


def _source(fact: "ModelFacts") -> str:
    return fact.source
