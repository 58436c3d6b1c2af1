"""The program that the verbs belong to, and the options that all of them have."""

import functools
import inspect
import io
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from lamina.cli.terminal import Terminal, write_json

MAIN, RESULTS, HOSPITAL, DATA, MODELS = GROUPS = (
    "The main job",
    "Results",
    "In the hospital",
    "Data",
    "Networks, recipes, runs",
)
"""Groups of verbs in the help, in this order."""
_STORY = ("doctor", "prepare", "plan", "train", "predict", "evaluate")
"""The order in which a newcomer needs them; the others follow."""


class Program(TyperGroup):
    """The verbs together; who asks for JSON gets wrong usage as JSON too."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run one command line."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # file names may hold what UTF-8 cannot
                stream.reconfigure(errors="backslashreplace")
        given = list(sys.argv[1:] if args is None else args)
        if "--json" not in given:
            return super().main(given, *rest, **extra)
        try:
            status = super().main(given, *rest, **extra | {"standalone_mode": False})
        except typer.TyperException as error:
            write_json({"error": "UsageError", "message": error.format_message(), "remedy": ""})
            sys.exit(error.exit_code)
        sys.exit(status)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs group by group, those of the main job in their order."""

        def place(name: str) -> tuple[int, int]:
            verb = self.commands[name]
            assert isinstance(verb, TyperCommand | TyperGroup)
            turn = _STORY.index(name) if name in _STORY else len(_STORY)
            return GROUPS.index(str(verb.rich_help_panel)), turn

        return sorted(super().list_commands(ctx), key=place)


app = typer.Typer(
    name="lamina",
    cls=Program,
    help="Thin networks for medical image segmentation: labelled scans in, a small model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

OF_ALL = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    for name, option in {
        "json": Annotated[bool, typer.Option("--json", help="Print one JSON document.")],
        "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors.")],
        "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Debugging messages too.")],
    }.items()
]
"""Options of every verb."""


def verb(
    example: str, *, panel: str | None = None, group: typer.Typer = app, lasting: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a verb of a function, whose first argument is the terminal that all verbs have.

    Args:
        example: A command line that uses it.
        panel: Its group in the help, of ``GROUPS``.
        group: What it belongs to.
        lasting: As for :class:`~lamina.cli.terminal.Terminal`.
    """

    def register(work: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(work)
        def command(*, json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
            terminal = Terminal(json, quiet, verbose, lasting=lasting)
            with terminal.guard():
                work(terminal, **given)

        _, *own = inspect.signature(work).parameters.values()
        command.__signature__ = inspect.Signature([*own, *OF_ALL])  # type: ignore[attr-defined]
        return group.command(epilog=f"Example: {example}", rich_help_panel=panel)(command)

    return register


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Take the options that come before the verb."""
    if show:
        from lamina import __version__

        typer.echo(f"lamina {__version__}")
