"""Fixtures of the server's tests: one server for all that does not change its settings."""

import threading

import numpy as np
import pytest

pytest.importorskip("fastapi")

import uvicorn
from served import BASE, TestClient, serving, wait_for

from lamina.io import write_volume
from lamina.volume import Volume


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serve") / "data") as client:
        yield client


@pytest.fixture
def stranger(client):
    """The same server, without the token."""
    return TestClient(client.app, BASE)


@pytest.fixture(scope="session")
def scan_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    array = np.random.default_rng(0).normal(0, 9, (1, 8, 7, 6)).astype(np.float32)
    write_volume(Volume(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return path.read_bytes()


@pytest.fixture
def send(client, scan_bytes):
    """Send a scan by a name, and return the job."""

    def sending(name="scan.nii.gz", content=None, to=client):
        files = {"files": (name, scan_bytes if content is None else content)}
        answer = to.post("/api/jobs?model=pretend", files=files)
        assert answer.status_code == 202, answer.text
        return answer.json()

    return sending


@pytest.fixture(scope="session")
def listening(client):
    """The same server on a port of its own, for clients that open sockets."""
    config = uvicorn.Config(client.app, port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
