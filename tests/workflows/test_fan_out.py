"""Jobs run here or on Ray, each to its own outcome, and nothing is left behind."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lamina.errors import ClusterError, ConfigError, FileError, LaminaError, ResourceError
from lamina.workflows.steps import fan_out
from lamina.workflows.steps.fan_out import run_jobs

LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def refuse():
    raise FileError("a.nii: is empty.", remedy="Send it again.")


def stumble():
    raise ZeroDivisionError("no cases")


def exhaust():
    raise MemoryError


def test_every_job_has_its_outcome_in_order():
    told = []
    jobs = [partial(int, "7"), refuse, stumble, exhaust, partial(int, "8")]
    outcomes = run_jobs(jobs, on_done=lambda *done: told.append(done))
    assert told == list(enumerate(outcomes))
    seven, refused, stumbled, exhausted, eight = outcomes
    assert (seven, eight) == (7, 8)
    assert isinstance(refused, FileError)
    assert str(stumbled) == "ZeroDivisionError: no cases"
    assert isinstance(exhausted, ResourceError)


def test_ctrl_c_ends_them_all():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([interrupt, lambda: pytest.fail("went on")])


@pytest.mark.parametrize("cluster", ["", "local", "local:0", "local:two", "here", "host:", ":1"])
def test_a_cluster_that_is_none_is_refused(cluster):
    with pytest.raises(ConfigError, match="must be auto, host:port, or local:4"):
        run_jobs([int], cluster)


def test_running_here_needs_no_ray():
    script = (
        "import sys; from lamina.workflows.steps.fan_out import run_jobs\n"
        "print(run_jobs([int, float]), 'ray' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[0, 0.0] False\n"


def test_an_address_where_nobody_answers_is_refused_at_once():
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"{address}': nobody answers there"):
        run_jobs([int], address)


def test_a_start_that_takes_too_long_is_no_bug_of_ours():
    def init(**options):
        raise Exception("The current node timed out during startup.")  # as Ray does

    with pytest.raises(ClusterError, match=r"local:2'.* timed out .*give local:4 or so"):
        fan_out._connect(SimpleNamespace(init=init), "local:2", {})


def test_jobs_on_ray(tmp_path, monkeypatch, capfd):
    """Killed workers, errors, sockets, telemetry, and what stands there afterwards."""
    pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))
    surroundings, died = dict(os.environ), tmp_path / "died"
    driver = os.getpid()
    temporary, on_sigterm = set(_session_folders()), signal.getsignal(signal.SIGTERM)

    def die_once():
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    def look_around():
        found = []
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found += process.net_connections("inet")
        listening = {place.laddr.ip for place in found if place.status == psutil.CONN_LISTEN}
        return listening, os.environ["RAY_USAGE_STATS_ENABLED"]

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def raise_here():  # pickled whole, as functions of this file are not
        raise LaminaError("a.nii: is empty.", remedy="Send it again.")

    told = []
    jobs = [die_once, look_around, die, raise_here]
    outcomes = run_jobs(jobs, "local:2", on_done=lambda *done: told.append(done))
    survived, (listening, telemetry), lost, refused = outcomes
    assert sorted(told, key=lambda done: done[0]) == list(enumerate(outcomes))
    assert survived == "survived"
    assert listening
    assert listening <= LOOPBACK
    assert telemetry == "0"
    assert isinstance(lost, ResourceError)
    assert "lost 4 times" in lost.message
    assert refused.as_dict()["remedy"] == "Send it again."

    with pytest.raises(ClusterError, match=r"No machine .* 3 CPUs and 0 GPUs .*: 1 CPUs"):
        run_jobs(jobs, "local:1", cpus=3)

    assert capfd.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["died"]
    assert set(_session_folders()) == temporary
    assert dict(os.environ) == surroundings
    assert signal.getsignal(signal.SIGTERM) == on_sigterm
    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in p.name()]


def test_items_shared_out_come_back_in_order_whatever_part_is_done_first(monkeypatch):
    def backwards(jobs, *settings, **more):
        yield from reversed([(number, fan_out.attempt(job)) for number, job in enumerate(jobs)])

    monkeypatch.setattr(fan_out, "_on_ray", backwards)
    monkeypatch.setattr(fan_out, "_MAX_JOBS", 3)
    items = [-3, 1, -4, 1, -5, 9, -2]
    assert list(fan_out.spread(abs, items, 0, "local:2")) == [(item, abs(item)) for item in items]


def test_every_item_of_a_part_that_is_lost_is_told(monkeypatch):
    lost = ResourceError("its worker was lost 4 times.")
    outcomes = [(0, lost), (1, [(3, 9)])]
    monkeypatch.setattr(fan_out, "_on_ray", lambda *_, **__: (each for each in outcomes))
    monkeypatch.setattr(fan_out, "_MAX_JOBS", 2)
    found = list(fan_out.spread(abs, [1, 2, 3], 0, "local:2"))
    assert found == [(1, lost), (2, lost), (3, 9)]


def _session_folders():
    return Path(tempfile.gettempdir()).glob("lamina-*")
