"""What came from a PACS, and what became of it, as people read it."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lamina.workflows.pacs.state import Entry
    from lamina.workflows.pacs.transfer import Pull


def pulled(result: "Pull") -> Table:
    """List the series that were copied."""
    table = Table(box=SIMPLE_HEAD, caption=f"In {result.out}", caption_justify="left")
    table.add_column("Series", overflow="fold")
    table.add_column("Modality")
    table.add_column("Files", justify="right")
    for one in result.series:
        if not one.error:
            table.add_row(one.folder, Text(one.modality), f"{one.instances}")
    return table


def listed(entries: "Sequence[Entry]") -> tuple[str, ...]:
    """List series: state, UID, what is wrong, and what is unusual."""
    lines = []
    for entry in entries:
        since = datetime.fromtimestamp(entry.changed)
        facts = f"{entry.instances} files, tries: {entry.tries}, since {since:%Y-%m-%d %H:%M:%S}"
        lines.append(f"{entry.number:>5}  {entry.status:<9}  {facts}")
        lines += [
            f"       {text}"
            for text in (entry.uid, entry.reason, *entry.flags.splitlines())
            if text
        ]
    return tuple(lines)
