"""Fetching tasks of the Decathlon from a server that holds a tiny one."""

import gzip
import hashlib
import io
import json
import shutil
import socket
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from monai.apps import DecathlonDataset

from lamina.data.layouts import read_cohort
from lamina.errors import DatasetError, FileError, UnknownNameError
from lamina.workflows import fetch as workflow
from lamina.workflows.fetch import fetch, source_of

TASK = "Task04_Hippocampus"


class _Server(BaseHTTPRequestHandler):
    body, promised, status = b"", 0, 200

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", str(self.promised))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """Serve an archive as the task: ``server(body, promised=bytes, md5=digits, status=200)``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as http:
        thread = Thread(target=http.serve_forever, args=(0.01,))
        thread.start()

        def serve(body, promised=None, md5=None, status=200):
            values = {"body": body, "promised": promised or len(body), "status": status}
            for name, value in values.items():
                monkeypatch.setattr(_Server, name, value)
            url = f"http://127.0.0.1:{http.server_port}/{TASK}.tar"
            monkeypatch.setitem(DecathlonDataset.resource, TASK, url)
            digest = md5 or hashlib.md5(body).hexdigest()
            monkeypatch.setitem(DecathlonDataset.md5, TASK, digest)

        yield serve
        http.shutdown()
        thread.join()


def archive(*members):
    """Return a tar of ``(name, content)``, or of members as they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.fixture
def body(tiny_dataset, tmp_path):
    shutil.copytree(tiny_dataset, tmp_path / "served" / TASK)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(tmp_path / "served" / TASK, TASK)
    return stream.getvalue()


def test_a_task_is_fetched_whole_and_can_be_read(server, body, tmp_path):
    server(body)
    calls = []
    folder = fetch(source_of(TASK), tmp_path / "data", progress=lambda *call: calls.append(call))
    assert folder == tmp_path / "data" / TASK
    assert [path.name for path in (tmp_path / "data").iterdir()] == [TASK]
    assert len(read_cohort(folder).cases) == 6
    assert calls[-1] == (len(body), len(body), f"Fetching {TASK}")


def test_a_task_that_is_there_is_not_fetched_again(server, body, tmp_path, cli):
    server(body)
    fetch(source_of(TASK), tmp_path)
    server(b"", status=500)
    told = json.loads(cli("fetch", TASK, "--out", tmp_path, "--json").stdout)
    assert told["out"] == str(tmp_path / TASK)


@pytest.mark.parametrize(
    ("served", "fault"),
    [
        ({"promised": 10**6}, r"ended after [\d,]+ of 1,000,000 bytes"),
        ({"md5": "0" * 32}, "MD5 is [0-9a-f]{32}, it should be 0{32}"),
        ({"status": 404}, "cannot be fetched: Not Found"),
    ],
)
def test_a_download_that_fails_says_what_to_do_and_leaves_nothing(served, fault, server, tmp_path):
    server(archive((f"{TASK}/dataset.json", b"{}")), **served)
    with pytest.raises(FileError, match=rf"{TASK}\.tar: .*{fault}.*medicaldecathlon"):
        fetch(source_of(TASK), tmp_path / "data")
    assert not [*(tmp_path / "data").iterdir()]


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("../outside", b"bad")], "outside the destination"),
        ([link(f"{TASK}/home", "/etc"), (f"{TASK}/home/passwd", b"bad")], "absolute path"),
        ([link(f"{TASK}/up", "../../.."), (f"{TASK}/up/bad", b"bad")], "outside the destination"),
        ([("other/dataset.json", b"{}")], f"holds no {TASK}/dataset.json"),
    ],
)
def test_an_archive_that_is_not_the_task_or_leads_elsewhere_is_refused(
    members, fault, server, tmp_path
):
    server(archive((f"{TASK}/imagesTr/a", b""), *members))
    with pytest.raises(FileError, match=fault):
        fetch(source_of(TASK), tmp_path / "deep" / "data")
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert found == []


def test_an_archive_that_is_cut_is_refused(server, body, tmp_path):
    server(body[: len(body) // 2 + 100])
    with pytest.raises(FileError, match="cannot be unpacked"):
        fetch(source_of(TASK), tmp_path / "data")
    assert not [*(tmp_path / "data").iterdir()]


def test_a_packed_archive_that_is_cut_or_damaged_is_refused(server, body, tmp_path):
    packed = bytearray(gzip.compress(body))
    cut = packed[: len(packed) // 2]
    packed[12:20] = b"\xff" * 8
    for damaged in (cut, packed):
        server(bytes(damaged))
        with pytest.raises(FileError, match="cannot be unpacked"):
            fetch(source_of(TASK), tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


def test_ctrl_c_leaves_nothing(server, body, tmp_path):
    def interrupt(*call):
        raise KeyboardInterrupt

    server(body)
    with pytest.raises(KeyboardInterrupt):
        fetch(source_of(TASK), tmp_path / "data", progress=interrupt)
    assert not [*(tmp_path / "data").iterdir()]


def test_without_a_network_there_is_one_clear_error(monkeypatch, tmp_path, cli):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(DecathlonDataset.resource, TASK, f"http://127.0.0.1:{port}/{TASK}.tar")
    done = cli("fetch", TASK, "--out", tmp_path / "data", "--json")
    assert done.exit_code == 2
    error = json.loads(done.stdout)
    assert "refused" in error["message"]
    assert "in another way" in error["remedy"]
    assert not [*(tmp_path / "data").iterdir()]


def test_a_server_that_says_nothing_is_not_waited_for_forever(monkeypatch, tmp_path):
    monkeypatch.setattr(workflow, "_TIMEOUT_S", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{TASK}.tar"
        monkeypatch.setitem(DecathlonDataset.resource, TASK, url)
        with pytest.raises(FileError, match="cannot be fetched: timed out"):
            fetch(source_of(TASK), tmp_path)


def test_a_folder_of_that_name_that_is_something_else_is_left_alone(server, body, tmp_path):
    server(body)
    (tmp_path / TASK).mkdir()
    (tmp_path / TASK / "mine").touch()
    with pytest.raises(DatasetError, match="is there, and is not Task04"):
        fetch(source_of(TASK), tmp_path)
    assert [path.name for path in (tmp_path / TASK).iterdir()] == ["mine"]


def test_all_ten_tasks_have_an_address_and_a_checksum():
    for task in DecathlonDataset.resource:
        source = source_of(task)
        assert source.url.startswith("https://")
        assert Path(source.url).name == f"{task}.tar"
        assert len(source.md5) == 32
    with pytest.raises(UnknownNameError, match="Unknown task 'Task4'.*Task04_Hippocampus"):
        source_of("Task4")


def test_the_licence_is_said_before_anything_is_fetched(server, body, tmp_path, cli):
    server(body, status=403)
    done = cli("fetch", TASK, "--out", tmp_path)
    assert done.stderr.splitlines()[0] == f"{TASK}: CC BY-SA 4.0; http://medicaldecathlon.com"
    assert "Error: " in done.stderr
    server(body)
    done = cli("fetch", TASK, "--out", tmp_path)
    assert done.exit_code == 0
    assert f"Next: lamina prepare {tmp_path / TASK} --out WORK" in done.stdout.splitlines()
