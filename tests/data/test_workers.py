"""Work over many cases: in order, none lost, whatever becomes of a worker process."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lamina.data.workers import num_cores, run_over, workers_for
from lamina.errors import GeometryError, LaminaError

MAIN = os.getpid()


def square(number: int) -> int:
    if number == 13:
        raise GeometryError("case 13: no.", remedy="Take another.")
    if number == 31:
        raise MemoryError
    if number == 99:
        raise ZeroDivisionError("a mistake of ours")
    return number * number


def slow_first(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return os.getpid()


def kills_itself(job: tuple[int, int]) -> int:
    number, parent = job
    if number == 0:
        time.sleep(0.4)  # it is under way, and innocent, when the first worker dies
    if number in (1, 3):
        assert os.getpid() != int(parent)
        os.kill(os.getpid(), signal.SIGKILL)
    return -number


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_and_one_error_stops_nobody(workers):
    outcomes = list(run_over(square, [5, 13, 31, 4, 0], workers))
    assert [item for item, _ in outcomes] == [5, 13, 31, 4, 0]
    assert [found for _, found in outcomes if not isinstance(found, LaminaError)] == [25, 16, 0]
    refused, too_large = outcomes[1][1], outcomes[2][1]
    assert isinstance(refused, GeometryError)
    assert (refused.message, refused.remedy) == ("case 13: no.", "Take another.")
    assert "not enough memory" in too_large.message


def test_workers_are_other_processes_and_the_slow_one_is_waited_for():
    outcomes = list(run_over(slow_first, range(4), 2))
    assert [item for item, _ in outcomes] == [0, 1, 2, 3]
    assert MAIN not in {process for _, process in outcomes}
    assert {process for _, process in run_over(slow_first, [1, 2], 0)} == {MAIN}


def test_a_mistake_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(run_over(square, [1, 99, 2], 0))


def test_an_item_that_kills_its_worker_is_reported_and_no_other_is_lost():
    jobs, others = [(number, MAIN) for number in range(6)], multiprocessing.active_children()
    outcomes = dict(run_over(kills_itself, jobs, 2))
    assert list(outcomes) == jobs
    for (number, _), found in outcomes.items():
        if number in (1, 3):
            assert isinstance(found, LaminaError)
            assert "was killed" in found.message
            assert found.remedy
        else:
            assert found == -number
    assert set(multiprocessing.active_children()) <= set(others)


def test_work_for_other_processes_is_a_function_of_a_module():
    with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
        list(run_over(lambda number: number, [1, 2], 2))


def test_no_items_need_no_workers():
    assert list(run_over(square, [], 2)) == []


UNGUARDED = """
import math
from lamina.data.workers import run_over
print(list(run_over(math.sqrt, [1, 4], 2)))
"""


UNGUARDED_LOADER = """
from torch.utils.data import DataLoader
from lamina.data.patches import loading
print([(int(one), float(one) ** 0.5) for one in DataLoader([1, 4], **loading(2, "cpu"))])
"""


@pytest.mark.parametrize("program", [UNGUARDED, UNGUARDED_LOADER], ids=["pool", "loader"])
@pytest.mark.parametrize("read_from", ["stdin", "file"])
def test_a_program_that_cannot_start_workers_goes_on_alone(tmp_path, read_from, program):
    script = tmp_path / "script.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, "-" if read_from == "stdin" else str(script)],
        input=program,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "[(1, 1.0), (4, 2.0)]" in done.stdout
    assert "Worker processes cannot be started from here" in done.stderr
    assert 'below if __name__ == "__main__":' in done.stderr
    assert "Traceback" not in done.stderr


UNGUARDED_TWICE = """
import math
from lamina.data.workers import run_over
print("read")
print(list(run_over(math.sqrt, [1, 4], 0)))
for _ in range(2):
    print(list(run_over(math.sqrt, [9], 2)))
"""


def test_a_script_is_read_again_once_and_only_to_its_first_work(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED_TWICE)
    done = subprocess.run(
        [sys.executable, "-u", script], capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split("\n")) == sorted(
        ["read", "[(1, 1.0), (4, 2.0)]", "read", "[(9, 3.0)]", "[(9, 3.0)]", ""]
    )


def test_as_many_workers_as_memory_and_cores_allow(monkeypatch):
    free = psutil.virtual_memory()._replace(available=8 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr("lamina.data.workers.num_cores", lambda: 6)
    assert workers_for(200 << 20, 100) == 6
    assert workers_for(1 << 30, 100) == 4
    assert workers_for(1 << 30, 3) == 3
    assert workers_for(3 << 30, 100) == 0
    assert workers_for(1 << 20, 100) == 0
    assert workers_for(0, 100) == 0


def test_cores_are_those_this_process_may_use():
    assert 1 <= num_cores() <= os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        command = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        command += "from lamina.data.workers import num_cores; print(num_cores())"
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
        assert done.stdout == b"1\n"


SLEEPERS = """
import os, time
from lamina.data.workers import run_over

def sleep(item):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(120)

if __name__ == "__main__":
    list(run_over(sleep, [1, 2], 2))
"""


def test_workers_leave_when_their_program_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SLEEPERS)
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        workers = [psutil.Process(int(program.stdout.readline())) for _ in range(2)]
        program.kill()
        give_up = time.monotonic() + 60
        while not all(is_gone(worker) for worker in workers):
            assert time.monotonic() < give_up
            time.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    """Tell whether a process has ended, be it that nobody has asked yet how."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
