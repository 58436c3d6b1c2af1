"""What a person sees of a training run while it goes on, on a terminal or in a log."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lamina.cli.terminal import Terminal
from lamina.cli.units import spoken

if TYPE_CHECKING:
    from lamina.training.callbacks import EpochReport
    from lamina.training.config import TrainConfig

TOLERABLE_WAITING = 0.05
"""Share of the training time above which waiting for patches is worth a remark."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_EPOCHS_DRAWN = 24
_STRUCTURES = 12
_PER_SECOND = 4


class Course:
    """How far a run is and how well it does, as training tells it."""

    def __init__(self) -> None:
        self.epochs: int | None = None
        self.steps_per_epoch = 1
        self.select_by = "dice"
        self.history: list[Mapping[str, float]] = []
        self.step = 0
        self.progress = 0.0
        self.loss: float | None = None
        self.to_go: float | None = None

    def on_start(self, config: "TrainConfig", history: Sequence[Mapping[str, float]]) -> None:
        """Take the length of the run and the epochs that a resumed one has behind it."""
        self.epochs = config.epochs
        self.steps_per_epoch = config.steps_per_epoch or 1
        self.select_by = config.select_by
        self.history = list(history)
        self.step = int(history[-1]["step"]) if history else 0

    def on_step(self, step: int, progress: float, loss: float, to_go: float | None) -> None:
        """Take what is told after a step."""
        self.step, self.progress, self.loss, self.to_go = step, progress, loss, to_go

    def on_epoch(self, report: "EpochReport") -> None:
        """Take what is told after an epoch; one that is done again replaces the earlier."""
        self.history = [line for line in self.history if line["epoch"] < report.epoch]
        self.history.append(report.flat())

    def listeners(self) -> dict[str, Any]:
        """Return what training calls."""
        return {name: getattr(self, name) for name in ("on_start", "on_epoch", "on_step")}

    @property
    def latest(self) -> Mapping[str, float] | None:
        """The epoch that was last validated."""
        return self.history[-1] if self.history else None

    @property
    def best(self) -> Mapping[str, float]:
        """The epoch that is kept; there must be one."""
        return max(self.history, key=lambda line: line[self.select_by])

    def named(self, epoch: int) -> str:
        """Return ``"Epoch 3 of 50"``, epochs counted from 0."""
        return f"Epoch {epoch + 1}" + (f" of {self.epochs}" if self.epochs else "")


class Display(Course):
    """The same as a few lines that are drawn anew several times a second."""

    def __rich__(self) -> RenderableType:
        """Return what is to be seen now."""
        return Group(self._bar(), self._steps(), *self._scores())

    def _bar(self) -> Table:
        row = Table.grid(padding=(0, 2, 0, 0), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(justify="right", no_wrap=True)
        row.add_column(no_wrap=True)
        row.add_row(
            Text(self.named(max(0, self.step - 1) // self.steps_per_epoch), style="bold"),
            ProgressBar(total=1, completed=self.progress),
            Text(f"{self.progress:.0%}", style="progress.percentage"),
            Text(f"{spoken(self.to_go)} to go" if self.to_go else "", style="progress.remaining"),
        )
        return row

    def _steps(self) -> Text:
        within = (self.step - 1) % self.steps_per_epoch + 1 if self.step else 0
        parts = [f"step {within} of {self.steps_per_epoch}"]
        parts += [] if self.loss is None else [f"loss {self.loss:.3f}"]
        parts.append(f"memory {_memory()}")
        line = Text("  " + "   ".join(parts), no_wrap=True, overflow="ellipsis")
        if self.latest and "waiting" in self.latest:
            share = self.latest["waiting"]
            line.append("   ").append(_waiting(share), "yellow" * (share > TOLERABLE_WAITING))
        return line

    def _scores(self) -> list[RenderableType]:
        if self.latest is None:
            return [Text("  Dice: after the first epoch", style="dim")]
        best, dice = self.best, [line["dice"] for line in self.history]
        line = Text("  Dice ", no_wrap=True, overflow="ellipsis").append(f"{dice[-1]:.3f}", "bold")
        line.append(f"   best {best['dice']:.3f} in epoch {int(best['epoch']) + 1}", "green")
        line.append(f"   {_sparkline(dice[-_EPOCHS_DRAWN:])}", "cyan")
        return [line, *_structures(_by_structure(self.latest))]


class Log(Course):
    """The same as one line per epoch, for files and for terminals that cannot move.

    Args:
        terminal: Where to write.
    """

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal

    def on_epoch(self, report: "EpochReport") -> None:
        """Write the line."""
        super().on_epoch(report)
        structures = _by_structure(report.scores)
        each = ", ".join(f"{name} {dice:.3f}" for name, dice in structures.items())
        parts = [
            f"loss {report.loss:.3f}",
            f"Dice {report.scores['dice']:.3f}" + (f" ({each})" if each else ""),
            f"best {self.best['dice']:.3f} in epoch {int(self.best['epoch']) + 1}",
            _waiting(report.waiting),
            _memory(),
            *([f"{spoken(self.to_go)} to go"] if self.to_go else []),
        ]
        self.terminal.tell(f"{self.named(report.epoch)}: {', '.join(parts)}")


@contextmanager
def watching(terminal: Terminal) -> Iterator[dict[str, Any]]:
    """Show a training run as the terminal allows; yield what training is to call."""
    if terminal.quiet:
        yield {}
    elif not terminal.err.is_terminal:
        yield Log(terminal).listeners()
    else:
        display = Display()
        with Live(
            get_renderable=lambda: display,
            console=terminal.err,
            refresh_per_second=_PER_SECOND,
            transient=True,
        ):
            yield display.listeners()


def on_bar(show: Callable[..., None], tell: Callable[[Any], str]) -> dict[str, Any]:
    """Return what training calls, to be shown on one plain bar.

    Args:
        show: The bar's listener.
        tell: Says the last epoch in a few words.
    """
    latest = ""

    def on_epoch(report: Any) -> None:
        nonlocal latest
        latest = f"  {tell(report)}"

    def on_step(step: int, progress: float, loss: float, to_go: float | None) -> None:
        show(progress, 1, f"Step {step}  loss {loss:.3f}{latest}", to_go)

    return {"on_epoch": on_epoch, "on_step": on_step}


def on_lines(terminal: Terminal, tell: Callable[[Any], str]) -> dict[str, Any]:
    """Return what the training of several folds calls, as one line per epoch.

    Args:
        terminal: Where to write.
        tell: Says an epoch in a few words.
    """
    done = 0.0

    def on_epoch(report: Any) -> None:
        terminal.tell(f"{done:3.0%} of all folds: epoch {report.epoch + 1}, {tell(report)}")

    def on_step(step: int, progress: float, loss: float, to_go: float | None) -> None:
        nonlocal done
        done = progress

    return {"on_epoch": on_epoch, "on_step": on_step}


def _by_structure(scores: Mapping[str, float]) -> dict[str, float]:
    return {n.removeprefix("dice/"): d for n, d in scores.items() if n.startswith("dice/")}


def _structures(dice: Mapping[str, float]) -> list[RenderableType]:
    """Return each structure's Dice in as many columns as fit; the lowest ones, of too many."""
    shown = sorted(dice, key=lambda name: dice[name])[:_STRUCTURES]
    cells = [
        Text(f"{name} ", no_wrap=True).append(f"{dice[name]:.3f}", "bold")
        for name in dice
        if name in shown
    ]
    more = len(dice) - len(shown)
    note = [Text(f"    and {more} structures above these", style="dim")] if more else []
    return [Padding(Columns(cells, padding=(0, 3), equal=True), (0, 0, 0, 4)), *note]


def _waiting(share: float) -> str:
    return f"waiting {share:.0%}"


def _memory() -> str:
    import torch

    from lamina.inference.memory import peak_bytes

    return f"{peak_bytes('cuda' if torch.cuda.is_initialized() else 'cpu') / 1e9:.1f} GB"


def _sparkline(values: Sequence[float]) -> str:
    """Return one block per value, from 0 to the highest."""
    top = max([*values, 1e-9])
    return "".join(_BLOCKS[round(value / top * (len(_BLOCKS) - 1))] for value in values)
