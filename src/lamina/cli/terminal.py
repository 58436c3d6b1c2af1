"""What a person, or a program, sees of a command."""

import json
import logging
import math
import os
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from lamina.cli.units import spoken
from lamina.errors import LaminaError, ResourceError, some
from lamina.signals import INTERRUPTED

FAILED = 1
"""Exit status when some scans failed and the others were done."""
REFUSED = 2
"""Exit status when nothing could be done as asked."""

_ALIKE = 3
"""Cases of one failure that are told in full."""
_AGAIN_S = 60
"""After which a program that goes on for days says the same again."""
_BROUGHT_BY = {"ignite": "pytorch-ignite", "skimage": "scikit-image", "starlette": "fastapi"}
"""Modules and the distributions that bring them, where their names differ."""


def is_follower(*, several: bool) -> bool:
    """Tell whether this is not the first process of a run: it says nothing but errors.

    Args:
        several: Whether the run is to have several; a job of SLURM's may be many runs of one.
    """
    if several or "RANK" in os.environ:  # torch warns of every network that uses all its weights
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", *(["SLURM_PROCID"] if several else []))
    return any(os.environ.get(name, "0") != "0" for name in names)


class Terminal:
    """Prints results to standard output, and progress, warnings and errors to standard error.

    Args:
        as_json: Print one JSON document instead of tables and bars.
        quiet: Print nothing but errors.
        verbose: Print debugging messages, of other packages too.
        lasting: Go on for days, and say again what happens again.
    """

    def __init__(self, as_json: bool, quiet: bool, verbose: bool, *, lasting: bool = False) -> None:
        self.as_json = as_json
        self.answered = False
        self.lasting = lasting
        self.quiet = quiet or as_json
        self.out = Console()
        self.err = Console(stderr=True)
        level = logging.ERROR if quiet else logging.WARNING
        others = logging.DEBUG if verbose else logging.ERROR
        handlers = [_Handler(self)]
        logging.basicConfig(level=others, handlers=handlers, format="%(message)s", force=True)
        logging.getLogger("lamina").setLevel(min(level, others))
        logging.captureWarnings(True)

    def hush(self) -> None:
        """Print no result, and say nothing but errors, or what ``verbose`` shows, from here on."""
        self.as_json, self.quiet = False, True
        logging.getLogger("lamina").setLevel(logging.NOTSET)  # as other packages are

    def result(self, data: dict[str, Any], *shown: RenderableType) -> None:
        """Print a command's result: ``data`` as JSON, or what is ``shown`` to people.

        Strings are printed as they are, for the terminal to wrap; it cuts no path in two.
        """
        if self.as_json:
            write_json(data)
            self.answered = True
        elif not self.quiet:
            for part in shown:
                show = self.out.out if isinstance(part, str) else self.out.print
                show(_printable(part) if isinstance(part, str) else part, highlight=False)

    def tell(self, message: str) -> None:
        """Say how work goes on, for people; no result."""
        if not self.quiet:
            self.err.print(Text(_printable(message)), soft_wrap=True)

    def failures(self, found: Mapping[str, str], what: str) -> None:
        """List what failed, unless the JSON document does, and exit so that a script notices."""
        if not found:
            return
        if not self.as_json:
            self._say(what, f"{len(found)}", "bold red")
            alike: dict[str, list[str]] = defaultdict(list)
            for name, why in found.items():
                alike[why.replace(name, "")].append(name)
            for names in alike.values():
                for name in names[:_ALIKE]:
                    self._say("", found[name] if name in found[name] else f"{name}: {found[name]}")
                if others := names[_ALIKE:]:
                    self._say("", f"and {len(others)} more for the same reason: {some(others)}")
        raise typer.Exit(FAILED)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn errors into one clear message and an exit status."""
        try:
            yield
        except LaminaError as error:
            self._refuse(error)
        except ModuleNotFoundError as error:
            extra = _extra_of(error.name or "")
            if extra is None:
                raise
            self._refuse(
                LaminaError(
                    f"{error.name} is not installed.", remedy=f"pip install 'lamina[{extra}]'"
                )
            )
        except MemoryError as error:
            reason = f"There is not enough memory: {error or 'none is left'}."
            self._refuse(ResourceError(reason, remedy="Free some, or use a machine with more."))
        except KeyboardInterrupt:
            self._interrupted()

    @contextmanager
    def bar(self) -> Iterator[Callable[..., None]]:
        """Yield a listener ``(done, in all, what, seconds to go)``; the last may be left out."""
        label = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=label),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            _ToGo(),
        )
        hidden = self.quiet or not self.err.is_terminal
        with Progress(
            *columns, console=self.err, disable=hidden, transient=True, expand=True
        ) as bar:
            task = bar.add_task("Starting", total=None, to_go=None)

            def listen(done: float, total: float, what: str, to_go: float | None = None) -> None:
                if done < bar.tasks[0].completed:  # the next stage
                    bar.reset(task)
                bar.update(task, completed=done, total=total, description=what, to_go=to_go)

            yield listen

    def _refuse(self, error: LaminaError) -> NoReturn:
        if self.as_json:
            write_json(error.as_dict())
        else:
            self._say("Error", error.message, "bold red")
            if error.remedy:
                self._say("", error.remedy)
        raise typer.Exit(REFUSED) from None

    def _interrupted(self) -> NoReturn:
        message = "nothing half-written was left behind."
        if not self.as_json:
            self._say("Interrupted", message, "bold red")
        elif not self.answered:
            write_json({"error": "Interrupted", "message": message, "remedy": ""})
        raise typer.Exit(INTERRUPTED) from None

    def _say(self, title: str, message: str, style: str = "") -> None:
        """Print a message whose words, long paths among them, are never cut."""
        lines = _printable(f"{title}: {message}" if title else f"  {message}")
        if self.err.is_terminal:
            lines = "\n".join(_wrapped(line, self.err.width) for line in lines.splitlines())
        text = Text(lines)
        text.stylize(style, 0, len(title) + 1)
        self.err.print(text, soft_wrap=True)


class _Handler(logging.Handler):
    """Prints log messages, each once: a scan is read more than once, its faults stay the same.

    A program that goes on for days says what happens again, but not many times a minute.
    """

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal
        self.said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if self.terminal.lasting:
            since = record.created - _AGAIN_S
            self.said = {text: when for text, when in self.said.items() if when > since}
        message = self.format(record)
        if message not in self.said:
            self.said[message] = record.created
            self.terminal._say(record.levelname.capitalize(), message, "yellow")


class _ToGo(ProgressColumn):
    """Time to go: as the listener says, else by the speed so far."""

    def render(self, task: Task) -> Text:
        seconds = task.time_remaining if task.fields["to_go"] is None else task.fields["to_go"]
        return Text(f"{spoken(seconds)} to go" if seconds else "", style="progress.remaining")


def _extra_of(module: str) -> str | None:
    """Return the extra that brings a module, as the installed Lamina declares it; else ``None``."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        declared = requires("lamina") or ()
    except PackageNotFoundError:  # run from its sources, without being installed
        return None
    package = module.partition(".")[0]
    name = _BROUGHT_BY.get(package, package.replace("_", "-"))
    for requirement in declared:
        brought = re.fullmatch(r"([\w.-]+).*; extra == [\"'](\w+)[\"']", requirement)
        if brought and brought[1] == name:
            return brought[2]
    return None


def _printable(text: str) -> str:
    """Show control characters, which names in a dataset may hold, instead of obeying them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _wrapped(line: str, width: int) -> str:
    text = line.lstrip()
    indent = " " * (len(line) - len(text))
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def write_json(data: dict[str, Any]) -> None:
    """Print one document to standard output; what is no number becomes null."""
    sys.stdout.write(json.dumps(_finite(data), indent=2, ensure_ascii=False) + "\n")


def _finite(data: Any) -> Any:
    """Replace NaN and infinities, which JSON does not know, by null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
