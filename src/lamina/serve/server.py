"""The server as a process: listens, says where, and ends in order when told to."""

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from lamina.errors import ConfigError
from lamina.files import locked
from lamina.serve.errors import shown
from lamina.serve.settings import Settings

_GRACE_S = 5
"""Time that open connections get at the end."""
_MOST_CONNECTIONS = 1000
_BACKLOG = 256
_FULL = JSONResponse(
    shown("The server has too many connections.", "Try again soon."),
    503,
    {"Connection": "close", "Retry-After": "5"},
)


class _Connection(H11Protocol):
    """Closes a connection on which no request comes, and refuses those beyond the most."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            self.app = _FULL
        self._await_request()

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle and not self.cycle.response_complete:
            self._waiting.cancel()

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        limit = app.state.service.settings.request_s
        self._waiting = self.loop.call_later(limit, self.transport.close)


class _Server(uvicorn.Server):
    """Tells the application that it is to end while connections are still open."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        app.state.service.stopping.set()
        super().handle_exit(sig, frame)


def run(app: FastAPI, settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until a signal says to stop.

    Args:
        app: The application.
        settings: Its address.
        tell: Told the address to open, with the token, once it can be reached.

    Raises:
        ConfigError: The address cannot be listened on.
        FileError: Another server uses the folder.
    """
    with locked(settings.data):
        bound = _bound(settings)
        try:
            tell(address(settings, bound.getsockname()[1]))
            _quietly(_Server(configured(app)), bound)
        finally:
            bound.close()


def configured(app: FastAPI) -> uvicorn.Config:
    """Return how an application is served."""
    return uvicorn.Config(
        app,
        http=_Connection,
        access_log=False,  # addresses may hold the token
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )


def address(settings: Settings, port: int) -> str:
    """Return what to open in a browser."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    named = f"[{host}]" if ":" in host and not host.startswith("[") else host
    query = "" if settings.token is None else f"?token={settings.token}"
    return f"http://{named}:{port}/{query}"


def _quietly(server: uvicorn.Server, bound: socket.socket) -> None:
    """Run a server; the signal that ended it in order is not raised again behind it."""
    before = {sig: signal.signal(sig, signal.SIG_IGN) for sig in (signal.SIGINT, signal.SIGTERM)}
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run([bound])
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


def _bound(settings: Settings) -> socket.socket:
    host = settings.host.strip("[]")
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, settings.port))
        bound.listen(_BACKLOG)  # whoever is told the address may call at once
    except OSError as error:
        bound.close()
        of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        raise ConfigError(
            f"{settings.host}:{settings.port}: cannot be listened on: {error.strerror}.",
            remedy="Choose another --port, or 0 for any that is free."
            if of_port
            else "Give an address of this machine to --host, or 0.0.0.0 for all of them.",
        ) from error
    return bound
