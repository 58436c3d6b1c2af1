"""The server as its users start it: one command, one address, an end in order."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from small_bundles import small_bundle

pytest.importorskip("fastapi")

from lamina.bundle import save_bundle

TOKEN = "0123456789abcdef"
MAIN = "from lamina.cli import main; main()"


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    save_bundle(small_bundle("lightmedseg"), folder / "balls.lamina")
    return folder


@pytest.fixture
def server(tmp_path, models):
    """A running server of untrained weights, and its address."""
    command = [sys.executable, "-c", MAIN, "serve", "--models", models, "--data", tmp_path / "data"]
    command += ["--port", "0", "--token", TOKEN, "--max-upload", "1M", "--json"]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            url = json.loads("".join(process.stdout.readline() for _ in range(3)))["url"]
            yield process, url
        finally:
            process.kill()


def test_a_scan_is_segmented_and_the_server_ends_in_order(server, tiny_dataset):
    process, url = server
    assert url.endswith(f"/?token={TOKEN}")
    base = url.partition("/?")[0]
    with httpx.Client(
        base_url=base, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120
    ) as client:
        scan = tiny_dataset / "imagesTr" / "ball_000.nii.gz"
        files = {"files": (scan.name, scan.read_bytes())}
        job = client.post("/api/jobs?model=balls", files=files).json()
        assert too_much(urlsplit(base)) == 413
        with client.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
            lines = [line for line in stream.iter_lines() if line]
        assert json.loads(lines[-1].removeprefix("data: "))["state"] == "done"
        found = client.get(f"/api/jobs/{job['id']}/files/segmentation.nii.gz")
        assert len(gzip.decompress(found.content)) == 352 + 32 * 32 * 16
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, out, err) == (0, "", "")
    assert psutil.wait_procs(workers, timeout=120)[1] == []


def too_much(address):
    """Send more than is allowed without telling how much; return the status."""
    head = (
        "POST /api/jobs?model=balls HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\n'
    with socket.create_connection((address.hostname, address.port), timeout=180) as wire:
        wire.sendall(head.encode())
        for piece in (part, *[b"a" * 50_000] * 30):
            wire.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        return int(wire.recv(100).split()[1])


def test_a_server_that_cannot_start_says_why(cli, models, tmp_path):
    for arguments, said in [
        (["--host", "0.0.0.0", "--no-token"], "without a token"),
        (["--token", "short"], "at least 16"),
        (["--token", TOKEN, "--no-token"], "Give one of"),
        (["--host", "192.0.2.1", "--data", tmp_path / "data"], "cannot be listened on"),
    ]:
        done = cli("serve", "--models", models, *arguments, "--json")
        assert done.exit_code == 2, done.output
        assert said in json.loads(done.stdout)["message"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for where, remedy in [(["--host", "192.0.2.1"], "--host"), (["--port", port], "--port")]:
            done = cli("serve", "--models", models, *where, "--data", tmp_path / "data", "--json")
            assert remedy in json.loads(done.stdout)["remedy"]
    done = cli("serve", "--models", tmp_path / "gone", "--json")
    assert "holds no model" in json.loads(done.stdout)["message"]
