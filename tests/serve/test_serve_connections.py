"""Connections that bring nothing: they are closed, and keep nobody else out."""

import socket
import threading
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
import uvicorn
from served import TOKEN, serving, wait_for

from lamina.serve import guard
from lamina.serve import server as serving_process
from lamina.serve.server import configured

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
LOGIN = b"POST /monailabel/auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"


@contextmanager
def listening(folder, **settings):
    """Run a server as it is run for users; yield its port."""
    with serving(folder, **settings) as client:
        config = configured(client.app)
        config.lifespan = "off"  # the client sees to that
        config.port = 0
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        wait_for(lambda: server.started)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def connected(port, sent=b""):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(sent)
        yield wire


def everything(wire):
    """Return what comes until the other side closes."""
    return b"".join(iter(lambda: wire.recv(1 << 16), b""))


def test_connections_without_a_request_are_closed_and_requests_under_way_are_not(tmp_path):
    begun = "POST /api/jobs?model=pretend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    begun += (
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with (
        listening(tmp_path / "data", request_s=0.2) as port,
        connected(port, begun.encode()) as upload,
    ):
        for sent in (b"", HEAD[:9], HEAD):
            with connected(port, sent) as wire:
                assert everything(wire) == b""
        with connected(port, HEAD + b"\r\n" + HEAD) as wire:
            assert everything(wire).count(b"HTTP/1.1 200 OK") == 1
        with connected(port, LOGIN + b"pass") as wire:
            assert everything(wire).startswith(b"HTTP/1.1 408 ")
        upload.sendall(b"--x--\r\n\r\n")
        assert upload.recv(100).startswith(b"HTTP/1.1 422 ")  # no file was in it


def dripped(wire):
    """Send a body byte by byte until the other side closes; return what it answered."""
    wire.settimeout(0.05)
    answer = b""
    for _ in range(400):
        try:
            wire.sendall(b"a")
            got = wire.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            return answer
        if not got:
            return answer
        answer += got
    raise AssertionError("The connection is held.")


@pytest.mark.parametrize(
    ("path", "status"), [(b"/api/jobs", b"401"), (b"/monailabel/auth/token", b"408")]
)
def test_who_shows_no_token_holds_no_connection_by_single_bytes(
    tmp_path, monkeypatch, path, status
):
    monkeypatch.setattr(guard, "_DRAINED_S", 0.3)
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000\r\n\r\n"
    with (
        listening(tmp_path / "data", request_s=0.3) as port,
        connected(port, head) as wire,
    ):
        assert dripped(wire).startswith(b"HTTP/1.1 " + status)


def test_beyond_the_most_connections_there_is_an_answer_in_the_usual_form(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_process, "_MOST_CONNECTIONS", 2)
    with listening(tmp_path / "data") as port, connected(port) as first, connected(port):
        with connected(port, HEAD + b"\r\n") as third:
            head, _, body = everything(third).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert body == (
            b'{"error":{"message":"The server has too many connections.",'
            b'"remedy":"Try again soon."}}'
        )
        first.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert everything(first).startswith(b"HTTP/1.1 200 ")
        fourth = HTTPConnection("127.0.0.1", port, timeout=60)
        fourth.request("GET", "/healthz")
        assert fourth.getresponse().status == 200
        fourth.close()
