"""What asks a program to end is heard once, by whoever listens, unless it is to be ignored."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lamina.signals import ENDING, end_like_ctrl_c, on_ending

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")


TALKATIVE = """
import sys
from lamina.signals import on_ending
heard = []
on_ending(heard.append)
print("ready", flush=True)
sys.stdin.readline()
print("stopping", flush=True)
with open(sys.argv[1], "w") as told:
    told.write(*heard)
"""


@pytest.fixture(autouse=True)
def as_they_were():
    before = {name: signal.getsignal(signal.Signals[name]) for name in ENDING}
    for name in ENDING:
        signal.signal(signal.Signals[name], signal.default_int_handler)
    yield
    for name, handler in before.items():
        signal.signal(signal.Signals[name], handler)


def send(name):
    os.kill(os.getpid(), signal.Signals[name])


@pytest.mark.parametrize("name", ENDING)
def test_the_first_is_heard_and_a_second_acts_at_once(name):
    heard = []
    put_back = on_ending(heard.append)
    send(name)
    assert heard == [name]
    with pytest.raises(KeyboardInterrupt):
        send("SIGINT")
    put_back()
    with pytest.raises(KeyboardInterrupt):
        send(name)
    assert heard == [name]


def test_a_closed_terminal_may_tell_twice():
    heard = []
    put_back = on_ending(heard.append)
    send("SIGHUP")
    send("SIGHUP")
    put_back()
    assert set(heard) == {"SIGHUP"}


def test_the_end_may_be_told_to_a_terminal_that_is_gone(tmp_path):
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", TALKATIVE, str(tmp_path / "heard")],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        text=True,
    ) as process:
        with os.fdopen(ours, "rb") as terminal:
            assert terminal.readline() == b"ready\r\n"
        while os.isatty(theirs):  # another thread's new process may still have it for a moment
            time.sleep(0.01)
        os.close(theirs)
        process.send_signal(signal.SIGHUP)
        process.communicate("go on\n", timeout=60)
    assert (process.returncode, (tmp_path / "heard").read_text()) == (0, "SIGHUP")


def test_what_is_to_outlive_its_terminal_does():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard = []
    end_like_ctrl_c()
    put_back = on_ending(heard.append)
    send("SIGHUP")
    put_back()
    assert not heard
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("name", ENDING)
def test_a_program_ends_by_each_as_by_ctrl_c(name):
    signal.signal(signal.Signals[name], signal.SIG_DFL)
    end_like_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        send(name)


def test_only_the_main_thread_listens():
    heard = []
    thread = threading.Thread(target=lambda: on_ending(heard.append)())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
