"""What a person sees of a command, on a terminal and in a log."""

import io
import json
import logging
import re
import warnings
from importlib.metadata import metadata
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.table import Table

from lamina.cli.terminal import FAILED, REFUSED, Terminal
from lamina.errors import DatasetError
from lamina.signals import INTERRUPTED

ROOT = Path(__file__).parents[2]
PATH = "/a/rather/long/way/to/the/folder/with/all/the/scans/subject-0004_session-02_T1w.nii.gz"


@pytest.fixture(autouse=True)
def _logging_as_before(cli):
    """The fixture ``cli`` puts it back."""


@pytest.fixture
def terminal():
    """Return what makes a terminal of 60 columns, or a log file; ``.err.file`` has what it got."""

    def make(as_json=False, quiet=False, verbose=False, log=False, lasting=False):
        made = Terminal(as_json, quiet, verbose, lasting=lasting)
        for name in ("out", "err"):
            colours = {"force_terminal": not log, "color_system": None, "width": 60}
            setattr(made, name, Console(file=io.StringIO(), legacy_windows=False, **colours))
        return made

    return make


def error_of(terminal, error):
    with pytest.raises(typer.Exit) as refused, terminal.guard():
        raise error
    return refused.value.exit_code, terminal.err.file.getvalue()


def test_an_error_is_its_message_and_its_remedy(terminal):
    error = DatasetError("[red]odd.nii: is empty.", remedy="Send it again.")
    shown = (REFUSED, "Error: [red]odd.nii: is empty.\n  Send it again.\n")
    assert error_of(terminal(), error) == shown
    assert error_of(terminal(quiet=True), error) == shown


def test_one_that_is_hushed_says_nothing_but_errors(terminal, capsys):
    hushed = terminal(as_json=True)
    hushed.hush()
    hushed.result({"dice": 0.9}, "Dice 0.9")
    hushed.tell("Epoch 1 of 2")
    logging.getLogger("lamina").warning("The disk is slow.")
    assert (capsys.readouterr().out, hushed.out.file.getvalue()) == ("", "")
    error = DatasetError("odd.nii: is empty.")
    assert error_of(hushed, error) == (REFUSED, "Error: odd.nii: is empty.\n")


def test_a_missing_package_is_told_with_the_extra_that_declares_it(terminal):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    modules = {"scikit-image": "skimage", "pytorch-ignite": "ignite"}
    declared = project["optional-dependencies"]
    del declared["dev"], declared["docs"]
    for extra, requirements in declared.items():
        for name in (requirement.partition(">")[0] for requirement in requirements):
            module = modules.get(name, name.replace("-", "_"))
            _, shown = error_of(terminal(), ModuleNotFoundError(name=f"{module}.part"))
            (told,) = re.findall(r"pip install 'lamina\[(\w+)\]'", shown)
            assert told == extra or name in {r.partition(">")[0] for r in declared[told]}
    _, shown = error_of(terminal(), ModuleNotFoundError(name="starlette"))
    assert "lamina[serve]" in shown
    with pytest.raises(ModuleNotFoundError), terminal().guard():
        raise ModuleNotFoundError(name="torch")


@pytest.mark.parametrize("folder", ["src/lamina", "docs"])
def test_every_extra_that_is_told_can_be_installed(folder):
    extras = set(metadata("lamina").get_all("Provides-Extra"))
    files = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).glob("*.md")]
    told = [re.findall(r"lamina\[([a-z,]+)\]", file.read_text("utf-8")) for file in files]
    assert {extra for found in told for each in found for extra in each.split(",")} <= extras


def test_long_paths_are_never_cut(terminal):
    error = DatasetError(f"{PATH}: has 2 channels, 1 is declared, which is fewer than 2.")
    _, shown = error_of(terminal(), error)
    assert PATH in shown
    assert "2.\n" in shown
    assert all(len(line) <= 60 for line in shown.splitlines() if PATH not in line)
    _, logged = error_of(terminal(log=True), error)
    assert logged == f"Error: {error.message}\n"


def test_the_lines_of_a_message_stay_lines(terminal):
    _, shown = error_of(terminal(), DatasetError("2 settings are wrong:\n  - a\n  - b"))
    assert shown == "Error: 2 settings are wrong:\n  - a\n  - b\n"


def test_an_error_as_json(terminal, capsys):
    error_of(terminal(as_json=True), DatasetError("a", remedy="b"))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": "DatasetError", "message": "a", "remedy": "b"}
    assert captured.err == ""


def test_ctrl_c_is_one_line(terminal):
    status, shown = error_of(terminal(), KeyboardInterrupt())
    assert (status, shown) == (INTERRUPTED, "Interrupted: nothing half-written was left behind.\n")


def test_ctrl_c_is_the_document_where_there_is_none_yet(terminal, capsys):
    made = terminal(as_json=True)
    assert error_of(made, KeyboardInterrupt()) == (INTERRUPTED, "")
    message = "nothing half-written was left behind."
    told = {"error": "Interrupted", "message": message, "remedy": ""}
    assert json.loads(capsys.readouterr().out) == told
    made.result({"url": "http://127.0.0.1"})
    assert error_of(made, KeyboardInterrupt()) == (INTERRUPTED, "")
    assert json.loads(capsys.readouterr().out) == {"url": "http://127.0.0.1"}


def test_a_lack_of_memory_is_no_bug(terminal):
    status, shown = error_of(terminal(), MemoryError("Unable to allocate 9 GiB"))
    assert status == REFUSED
    assert shown.startswith("Error: There is not enough memory: Unable to allocate 9 GiB.\n")


def test_a_bug_is_not_hidden(terminal):
    with pytest.raises(ZeroDivisionError), terminal().guard():
        raise ZeroDivisionError


def test_failures_are_listed_whole_and_set_the_status(terminal):
    made = terminal()
    with pytest.raises(typer.Exit) as failed:
        made.failures({"a.nii": f"{PATH[:-9]}a.nii: is empty.", "case_7": "2 axes."}, "Failed")
    assert failed.value.exit_code == FAILED
    shown = made.err.file.getvalue()
    assert shown.startswith("Failed: 2\n")
    assert f"{PATH[:-9]}a.nii:" in shown
    assert "\n  case_7: 2 axes.\n" in shown
    made.failures({}, "Failed")


def test_of_many_alike_failures_the_first_are_told_and_all_counted(terminal):
    made = terminal()
    gone = {f"case_{i}": f"/images/case_{i}.nii: does not exist." for i in range(9)}
    with pytest.raises(typer.Exit):
        made.failures({"x": "x.nii: is empty."} | gone, "Left out")
    shown = made.err.file.getvalue()
    assert shown.startswith("Left out: 10\n")
    assert shown.count("does not exist.") == 3
    others = "and 6 more for the same reason: case_3, case_4, case_5, case_6, case_7, case_8"
    assert others in " ".join(shown.split())
    assert "x.nii: is empty." in shown


def test_results_are_json_that_knows_no_nan(terminal, capsys):
    terminal(as_json=True).result({"a": float("nan"), "b": [float("inf"), 1.5], "c": "é"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": None, "b": [None, 1.5], "c": "é"}
    assert "é" in out


def test_results_for_people_fit_the_terminal(terminal):
    made = terminal()
    table = Table("What", "Why")
    table.add_row("word", "many words " * 20)
    made.result({}, table, f"[b]: {PATH}")
    shown = made.out.file.getvalue()
    assert shown.endswith(f"\n[b]: {PATH}\n")
    assert max(map(len, shown.splitlines()[:-1])) <= 60
    quiet = terminal(quiet=True)
    quiet.result({}, table)
    assert quiet.out.file.getvalue() == ""


class TestMessages:
    """Warnings on the way."""

    def say(self, terminal):
        logging.getLogger("lamina.io").warning("a.nii: odd.")
        logging.getLogger("lamina.io").warning("a.nii: odd.")
        logging.getLogger("lamina.io").debug("detail")
        logging.getLogger("some.library").warning("chatter")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("more chatter", stacklevel=1)
        return terminal.err.file.getvalue()

    def test_are_ours_alone_and_each_is_said_once(self, terminal):
        assert self.say(terminal()) == "Warning: a.nii: odd.\n"

    @pytest.mark.parametrize(("lasting", "times"), [(False, 1), (True, 2)])
    def test_are_said_again_by_what_goes_on_for_days(self, terminal, lasting, times):
        made = terminal(lasting=lasting)
        log = logging.getLogger("lamina.serve")
        for second in (0, 1, 59, 90, 100):
            record = log.makeRecord(log.name, logging.ERROR, "", 0, "A worker ended.", (), None)
            record.created += second
            log.handle(record)
        assert made.err.file.getvalue() == "Error: A worker ended.\n" * times

    def test_are_left_out_when_quiet(self, terminal):
        assert self.say(terminal(quiet=True)) == ""

    def test_are_all_said_when_verbose(self, terminal):
        said = self.say(terminal(verbose=True))
        assert "Debug: detail\n" in said
        assert "chatter" in said


class TestBar:
    """Progress of work that can be counted."""

    def test_moves_and_leaves_no_trace_but_control_codes(self, terminal):
        made = terminal()
        with made.bar() as show:
            for done in (0.5, 1, 2):
                show(done, 4, "[red]case_007_with_a_very_long_name_that_would_fill_the_line.nii")
        shown = made.err.file.getvalue()
        assert "[red]case" in shown
        assert "50%" in shown
        assert shown.count("\n") == 1
        assert shown.endswith("\x1b[1A\x1b[2K")

    def test_says_how_long_it_will_take(self, terminal):
        made = terminal()
        with made.bar() as show:
            show(0.25, 1, "Step 7", 4800)
        assert "1 h 20 min to go" in made.err.file.getvalue()

    def test_starts_again_with_the_next_stage(self, terminal):
        made = terminal()
        with made.bar() as show:
            show(6, 6, "Reading")
            show(1, 6, "Preparing")
        assert " 17%" in made.err.file.getvalue()

    @pytest.mark.parametrize("how", [{"log": True}, {"quiet": True}, {"as_json": True}])
    def test_is_not_shown_where_it_cannot_move_or_is_unwanted(self, terminal, how):
        made = terminal(**how)
        with made.bar() as show:
            show(1, 2, "case")
        assert made.err.file.getvalue() == ""

    def test_makes_way_for_warnings(self, terminal):
        made = terminal()
        with made.bar() as show:
            show(1, 2, "case")
            logging.getLogger("lamina").warning("odd.")
            show(2, 2, "case")
        assert "Warning: odd.\n" in made.err.file.getvalue()
