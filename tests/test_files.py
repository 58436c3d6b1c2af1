"""Files are whole or absent: exceptions, full disks and kills included."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lamina.errors import FileError, LabelError
from lamina.files import (
    atomic_path,
    locked,
    read_json,
    remove_parts,
    sha256,
    write_json,
    write_text,
)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_block_that_ends_well_leaves_the_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "deep" / "scan.nii.gz"
    with atomic_path(path) as part:
        assert part.name.endswith("scan.nii.gz")
        part.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert _names(path.parent) == ["scan.nii.gz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_block_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "result.json"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_path(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["result.json"]


def test_folders_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "case"
    for content in ("first", "second"):
        with atomic_path(path) as part:
            part.mkdir()
            (part / content).write_text(content)
    assert _names(path) == ["second"]

    def interrupted() -> None:
        with atomic_path(path) as part:
            part.mkdir()
            (part / "third").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _names(path) == ["second"]
    assert _names(tmp_path) == ["case"]


def test_errors_of_our_own_pass_through_unchanged(tmp_path):
    def faulty() -> None:
        with atomic_path(tmp_path / "a"):
            raise LabelError("labels: no.")

    with pytest.raises(LabelError, match="labels: no"):
        faulty()


def test_an_error_within_names_the_file_that_the_user_knows(tmp_path):
    def nested() -> None:
        with atomic_path(tmp_path / "A.nii") as part, atomic_path(part):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(FileError, match=r"A\.nii: cannot be written: Input/output") as error:
        nested()
    assert ".part-" not in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
def test_who_waits_for_a_folder_gets_it_after_the_other(tmp_path):
    turns = []

    def second() -> None:
        with locked(tmp_path, wait=True):
            turns.append("second")

    with locked(tmp_path):
        waiting = threading.Thread(target=second)
        waiting.start()
        turns.append("first")
    waiting.join()
    assert turns == ["first", "second"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_called_one(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def fill() -> None:
        with atomic_path(path) as part:
            part.symlink_to("/dev/full")
            part.write_bytes(b"new")

    with pytest.raises(FileError, match=r"weights\.bin: no space left on the disk\. Free some"):
        fill()
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["weights.bin"]
    assert Path("/dev/full").exists()


FILL = """
import sys
import threading
from pathlib import Path
import numpy as np
from lamina.errors import FileError
from lamina.files import atomic_path, write_text
folder = Path(sys.argv[1])
write_text(folder / "a.npy", "old")
try:
    with atomic_path(folder / "a.npy") as part:
        np.save(part, np.zeros(10**6))
except FileError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()), (folder / "a.npy").read_text())
"""


def test_a_full_disk_is_recognised_when_the_writer_does_not_say_so(tmp_path):
    """NumPy reports a short write without an error number; a tiny file system shows it."""
    mount = f"mount -t tmpfs -o size=512k tmpfs {tmp_path}"
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], check=False).returncode:
        pytest.skip("this system lets no ordinary user mount a file system of its own")
    script = f'{mount} && exec "$0" -c "$1" {tmp_path}'
    done = subprocess.run(
        [*inside, script, sys.executable, FILL], capture_output=True, text=True, check=True
    )
    assert "a.npy: no space left on the disk." in done.stdout
    assert done.stdout.endswith("['a.npy'] old\n")


@pytest.mark.parametrize("where", ["file/inside.json", "file", "folder"])
def test_a_place_that_cannot_hold_the_file_is_one_clear_error(tmp_path, where):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()

    def write() -> None:
        with atomic_path(tmp_path / where) as part:
            part.mkdir() if where == "file" else part.write_text("new")

    with pytest.raises(FileError, match=f"{where}: cannot be written: "):
        write()
    assert (tmp_path / "file").read_text() == "old"
    assert _names(tmp_path) == ["file", "folder"]


WRITE_HALF = """
import sys, time
from pathlib import Path
from lamina.files import atomic_path
with atomic_path(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint"
    path.write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_HALF, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "written\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_json_comes_back_as_it_went(tmp_path):
    data = {"name": "Größe", "values": [1, 2.5, None, True], "nested": {"a": []}}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == data
    assert "Größe" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_has_no_word_for_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"dice": float("nan")})
    assert _names(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_json_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(FileError, match=r"plan\.json: not valid JSON: .* Mend or remove it\."):
        read_json(tmp_path / "plan.json")


@pytest.mark.parametrize("read", [read_json, sha256])
def test_a_missing_file_is_said_to_be_missing(tmp_path, read):
    with pytest.raises(FileError, match=r"none\.json: cannot be read: No such file"):
        read(tmp_path / "none.json")


def test_sha256_is_the_files_own(tmp_path):
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_what_a_kill_left_of_a_replaced_folder_is_removed(tmp_path):
    (tmp_path / ".old-0a1b2c3d-Case" / "arrays").mkdir(parents=True)
    (tmp_path / "Case").mkdir()
    remove_parts(tmp_path)
    assert _names(tmp_path) == ["Case"]
    assert not list((tmp_path / "Case").iterdir())


def test_folders_of_other_people_are_left_alone(tmp_path):
    for name in (".old-backup", ".old-notes-of-2023", ".old-0a1b2c3d"):
        (tmp_path / name).mkdir()
    remove_parts(tmp_path)
    assert _names(tmp_path) == [".old-0a1b2c3d", ".old-backup", ".old-notes-of-2023"]
    remove_parts(tmp_path / "nowhere")


def test_a_folder_whose_successor_a_kill_kept_out_comes_back(tmp_path):
    (tmp_path / ".old-0a1b2c3d-Case" / "arrays").mkdir(parents=True)
    (tmp_path / ".part-4e5f6a7b-case").mkdir()
    remove_parts(tmp_path)
    assert _names(tmp_path) == ["Case"]
    assert (tmp_path / "Case" / "arrays").is_dir()


@pytest.mark.parametrize("interruption", [OSError(5, "fault"), KeyboardInterrupt()])
def test_a_folder_stays_when_its_successor_cannot_take_its_place(
    tmp_path, monkeypatch, interruption
):
    path = tmp_path / "Model"
    path.mkdir()
    (path / "a").write_text("old")
    replace = Path.replace

    def once_interrupted(self, target):
        if self.name.startswith(".part-"):
            raise interruption
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", once_interrupted)
    with pytest.raises((FileError, KeyboardInterrupt)), atomic_path(path) as part:
        part.mkdir()
    assert _names(tmp_path) == ["Model"]
    assert (path / "a").read_text() == "old"


def test_a_name_that_is_too_long_is_one_clear_error(tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        write_text(tmp_path / ("x" * 300), "")
