"""The verb that shows recipes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lamina.cli.program import MODELS, verb
from lamina.cli.terminal import Terminal

if TYPE_CHECKING:
    from lamina.workflows.recipes import Recipe

_UNITS = {"dice": " %", "iou": " %", "hd95": " mm"}


@verb("lamina recipes glims-brats", panel=MODELS)
def recipes(
    terminal: Terminal,
    names: Annotated[list[str] | None, typer.Argument(help="Recipes; all by default.")] = None,
) -> None:
    """List training recipes: the papers' settings and scores, and where we depart from them."""
    from lamina.workflows.recipes import list_recipes

    found = list_recipes(names)
    shown = [_table(found)] if not names else map(_page, found)
    terminal.result({"recipes": [recipe.as_dict() for recipe in found]}, *shown)


def _table(found: list["Recipe"]) -> Table:
    table = Table(
        *("Recipe", "Dataset", "Network", "Published", "Departures"),
        box=SIMPLE_HEAD,
        caption="More: lamina recipes NAME. Use: lamina train WORK --recipe NAME",
    )
    table.columns[-1].justify = "right"
    for recipe in found:
        origin = recipe.origin
        count = str(len(origin.departures)) if origin.paper else ""
        network = recipe.model or "the plan's"
        table.add_row(recipe.name, origin.dataset or "any", network, _means(recipe), count)
    return table


def _means(recipe: "Recipe") -> str:
    scores = recipe.origin.published.items()
    return ", ".join(f"{metric} {of['mean']:g}{_UNITS[metric]}" for metric, of in scores)


def _page(recipe: "Recipe") -> Table:
    origin = recipe.origin
    table = Table(
        title=Text(origin.title), box=SIMPLE_HEAD, show_header=False, title_justify="left"
    )
    rows = {
        "name": recipe.name,
        "dataset": origin.dataset,
        "published": "\n".join(
            f"{metric}: " + ", ".join(f"{what} {score:g}" for what, score in of.items())
            for metric, of in origin.published.items()
        )
        or origin.unpublished,
        "source": origin.source,
        "metrics": ", ".join(origin.metrics),
        "scans": origin.preparation,
        "settings": _lines(recipe.settings),
        "--strict-paper": _lines(recipe.strict_paper or {}),
        "departs": "\n".join(f"- {departure}" for departure in origin.departures),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    return table


def _lines(settings: Mapping[str, Any]) -> str:
    """Return nested settings as lines ``a.b = value``."""
    from lamina.config import flat

    return "\n".join(f"{name} = {value}" for name, value in flat(settings).items())
