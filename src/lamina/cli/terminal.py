"""What a person, or a program, sees of a command."""

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lamina.errors import LaminaError

FAILED = 1
"""Exit status when some scans failed and the others were done."""
REFUSED = 2
"""Exit status when nothing could be done as asked."""
INTERRUPTED = 130


class Terminal:
    """Prints results to standard output, and progress, warnings and errors to standard error.

    Args:
        as_json: Print one JSON document instead of tables and bars.
        quiet: No progress, no warnings.
        verbose: Debugging messages too.
    """

    def __init__(self, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.out = Console()
        self.err = Console(stderr=True)
        self.quiet = quiet or as_json
        level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING
        handler = RichHandler(console=self.err, show_path=verbose, show_time=verbose)
        logging.basicConfig(level=level, handlers=[handler], format="%(message)s", force=True)

    def result(self, data: dict[str, Any], shown: RenderableType | None = None) -> None:
        """Print a command's result: ``data`` as JSON, or ``shown`` for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(_finite(data), indent=2, ensure_ascii=False) + "\n")
        elif shown is not None:
            self.out.print(shown)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn errors into one clear message and an exit status."""
        try:
            yield
        except LaminaError as error:
            self._refuse(error)
        except KeyboardInterrupt:
            self.err.print("Interrupted; nothing half-written was left behind.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(FAILED) from None

    @contextmanager
    def counting(self) -> Iterator[Callable[[int, int, str], None]]:
        """Yield a listener ``(done, in all, what)`` that shows a bar of countable work."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, disable=self.quiet) as bar:
            task = bar.add_task("", total=None)

            def listen(done: int, total: int, what: str) -> None:
                bar.update(task, completed=done, total=total, description=what)

            yield listen

    @contextmanager
    def advancing(self) -> Iterator[Callable[[float, str, str], None]]:
        """Yield a listener ``(progress 0..1, what, time to go)`` for work measured as a share."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[to_go]}"),
        )
        with Progress(*columns, console=self.err, disable=self.quiet) as bar:
            task = bar.add_task("", total=1.0, to_go="")

            def listen(progress: float, what: str, to_go: str) -> None:
                bar.update(task, completed=progress, description=what, to_go=to_go)

            yield listen

    def note(self, message: str) -> None:
        """Tell a person something that is no result."""
        if not self.quiet:
            self.err.print(message, highlight=False)

    def _refuse(self, error: LaminaError) -> NoReturn:
        if self.as_json:
            sys.stdout.write(json.dumps(error.as_dict(), indent=2, ensure_ascii=False) + "\n")
        else:
            self.err.print(f"[bold red]Error:[/] {_plain(error.message)}", highlight=False)
            if error.remedy:
                self.err.print(_plain(error.remedy), highlight=False)
        raise typer.Exit(REFUSED) from None


def _plain(text: str) -> str:
    """Keep square brackets in file names and lists from being read as markup."""
    return text.replace("[", "\\[")


def _finite(data: Any) -> Any:
    """Replace NaN and infinities, which JSON does not know, by null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
