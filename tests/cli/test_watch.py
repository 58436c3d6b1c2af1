"""A training run as a person sees it go on."""

import io

import pytest
from rich.console import Console

from lamina.cli.terminal import Terminal
from lamina.cli.watch import Display, watching
from lamina.training.callbacks import EpochReport
from lamina.training.config import TrainConfig

CONFIG = TrainConfig(epochs=50, steps_per_epoch=250)


@pytest.fixture(autouse=True)
def _logging_as_before(cli):
    """The fixture ``cli`` puts it back."""


def report(epoch, dice, waiting=0.02, **structures):
    each = {f"dice/{name}": value for name, value in structures.items()}
    return EpochReport(
        epoch=epoch,
        step=250 * (epoch + 1),
        elapsed_s=60.0,
        loss=0.4123,
        lr=0.001,
        scores={"dice": dice} | each,
        skipped_steps=0,
        waiting=waiting,
    )


def seen(display, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(display)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return "\n".join(line.rstrip() for line in lines)


def test_the_display_says_where_the_run_is_and_how_well_it_does():
    display = Display()
    display.on_start(CONFIG, [])
    assert "after the first epoch" in seen(display)
    display.on_epoch(report(0, 0.9, liver=0.95, tumour=0.85))
    display.on_epoch(report(1, 0.871, liver=0.95, tumour=0.61))
    display.on_step(612, 0.049, 0.3333, 4800)
    shown = seen(display)
    for words in (
        *("Epoch 3 of 50", "5%", "1 h 20 min to go", "step 112 of 250", "loss 0.333"),
        *("Dice 0.871", "best 0.900 in epoch 1", "liver 0.950", "tumour 0.610", "waiting 2%"),
        *("memory", " GB"),
    ):
        assert words in shown


def test_the_last_step_of_an_epoch_still_belongs_to_it():
    display = Display()
    display.on_start(CONFIG, [])
    display.on_step(12500, 1.0, 0.3, 0.0)
    assert "Epoch 50 of 50" in seen(display)
    assert "step 250 of 250" in seen(display)


def test_a_timed_run_has_no_last_epoch():
    display = Display()
    display.on_start(TrainConfig(time_budget_s=60.0, steps_per_epoch=10), [])
    display.on_step(25, 0.5, 0.3, 30.0)
    assert "Epoch 3 " in seen(display)
    assert "Epoch 3 of" not in seen(display)


def test_a_resumed_run_remembers_its_best_and_replaces_what_it_does_again():
    display = Display()
    history = [report(0, 0.9).flat(), report(1, 0.95).flat()]
    display.on_start(CONFIG, history)
    assert "best 0.950 in epoch 2" in seen(display)
    display.on_epoch(report(1, 0.5))
    assert "best 0.900 in epoch 1" in seen(display)


def test_of_many_structures_the_lowest_are_shown():
    display = Display()
    display.on_start(CONFIG, [])
    display.on_epoch(report(0, 0.5, **{f"part_{n:03d}": n / 104 for n in range(104)}))
    shown = seen(display)
    assert "part_011" in shown
    assert "part_012" not in shown
    assert "and 92 structures above these" in shown
    assert len(shown.splitlines()) < 15


def made(log):
    terminal = Terminal(False, False, False)
    console = Console(file=io.StringIO(), force_terminal=not log, width=80, legacy_windows=False)
    terminal.err = console
    return terminal


def test_a_log_gets_one_line_per_epoch():
    terminal = made(log=True)
    with watching(terminal) as listeners:
        listeners["on_start"](CONFIG, [])
        listeners["on_step"](250, 0.02, 0.4, 4800)
        listeners["on_epoch"](report(0, 0.871, liver=0.95, tumour=0.61))
    (line,) = terminal.err.file.getvalue().splitlines()
    assert line.startswith(
        "Epoch 1 of 50: loss 0.412, Dice 0.871 (liver 0.950, tumour 0.610), "
        "best 0.871 in epoch 1, waiting 2%, "
    )
    assert line.endswith(" GB, 1 h 20 min to go")


def test_a_terminal_is_left_as_it_was():
    terminal = made(log=False)
    with watching(terminal) as listeners:
        listeners["on_start"](CONFIG, [])
        listeners["on_epoch"](report(0, 0.871))
    shown = terminal.err.file.getvalue()
    assert "Epoch" in shown
    assert shown.endswith("\x1b[2K")


@pytest.mark.parametrize("how", [(True, False), (False, True)])
def test_who_wants_json_or_quiet_gets_nothing(how, capsys):
    terminal = Terminal(*how, False)
    with watching(terminal) as listeners:
        assert listeners == {}
    assert capsys.readouterr() == ("", "")
