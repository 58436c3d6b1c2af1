"""Pieces of Markdown, for model cards and tables, whatever the names in them are made of."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lamina.errors import some

ITEMS_SHOWN = 8
"""Longer lists and mappings are counted, not listed."""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def text(value: Any) -> str:
    """Return a value as a reader wants it: four digits, no long lists, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, (list, tuple, Mapping)):
        if isinstance(value, Mapping) or len(value) > ITEMS_SHOWN:
            return f"{len(value)} entries"
        return ", ".join(map(text, value))
    return escape(value)


def product(sizes: Sequence[float]) -> str:
    """Return sizes along axes: ``1 × 1 × 2.5``."""
    return " × ".join(f"{size:.4g}" for size in sizes)


def listing(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    return some(map(escape, names), ITEMS_SHOWN)


def words(name: str) -> str:
    """Return a setting's name with spaces."""
    return escape(name).replace("_", " ")


def escape(value: Any) -> str:
    """Return text that Markdown shows as it stands: names come from other people's files."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(value).split()))
