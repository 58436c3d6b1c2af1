"""What stands before every route: who may call, by which name, and what every answer carries.

A page of another origin cannot use a server on loopback: the host must be an address or a name that
was allowed (against DNS rebinding, which needs a name), the origin must be the server's own, and
the token must be shown, in a header or in a cookie that other sites cannot send.
"""

import asyncio
import errno
import hmac
import ipaddress
import logging
import sqlite3
import time
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lamina.errors import DiskFullError
from lamina.serve.errors import Refusal, places, shown
from lamina.serve.intake.uploads import disk_full
from lamina.serve.metrics import Requests
from lamina.serve.settings import Settings

log = logging.getLogger(__name__)

OPEN = frozenset({"/healthz", "/readyz", "/monailabel/auth/", "/monailabel/auth/token"})
"""Paths that need no token: they tell nothing, or take the token themselves."""

CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_SORRY = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Lamina</title>'
    '<meta name="viewport" content="width=device-width"><h1>Lamina</h1><p>{}</p><p>{}</p></html>'
)
"""What a person sees who opens the page without being let in."""
_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", *_WITH_BODY})
_REFUSED = 400
_DRAINED_BYTES = 1 << 24
_DRAINED_S = 2.0


class Guard:
    """The outermost layer of the server; see above.

    Args:
        app: What is guarded.
        settings: Token and names.
        requests: Counts answers.
    """

    def __init__(self, app: ASGIApp, settings: Settings, requests: Requests) -> None:
        self.app = app
        self.settings = settings
        self.requests = requests
        self.names = {"localhost", *map(_bare, (settings.host, *settings.allowed_hosts))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        body = _Body(receive, scope["method"] in _WITH_BODY)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= _REFUSED:
                    await body.drain()
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, body.receive, sending)
        except Exception as error:  # noqa: BLE001 - nobody sees more of it than this
            refusal = _as_refusal(error, scope)
            if not status:  # else the connection is cut, which tells the client
                await _refused(refusal, scope)(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - began
            self.requests.note(_method(scope), _route(scope), status, seconds)
            log.debug("%s %s %d %.3f s", _method(scope), _route(scope), status, seconds)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Refusal(
                403,
                "The server is not known by this name.",
                "Call it by its address, or start it with --allow-host NAME.",
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise Refusal(403, "Pages of other sites may not call the server.")
        if scope["path"] not in OPEN and not self._is_known(scope, headers):
            raise Refusal(
                401,
                "The token is missing or wrong.",
                "Open the address that lamina serve printed, or send the header "
                "Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )

    def _is_ours(self, host: str) -> bool:
        try:
            name = _bare(urlsplit(f"//{host}").hostname or "")
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        if self.settings.token is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        shown_tokens = [token] if scheme.lower() == "bearer" else []
        # programs on other ports set cookies of all kinds, and browsers send them here too
        cookies = cookie_parser(headers.get("cookie", ""))
        shown_tokens.append(cookies.get(self.settings.cookie, ""))
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            shown_tokens += parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return any(is_token(each, self.settings.token) for each in shown_tokens)


class _Body:
    """Knows whether more of a request's body is to come.

    Closing a connection with unread data throws away the answer that is under way to the client, so
    a little of what is refused is read and forgotten.
    """

    def __init__(self, receive: Receive, pending: bool) -> None:
        self._receive = receive
        self.pending = pending

    async def receive(self) -> Message:
        message = await self._receive()
        self.pending = bool(message.get("more_body"))
        return message

    async def drain(self) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._forget(), _DRAINED_S)

    async def _forget(self) -> None:
        left = _DRAINED_BYTES
        while self.pending and left > 0:
            left -= len((await self.receive()).get("body", b""))


def _bare(name: str) -> str:
    """Return a host's name as it is compared: names end in a dot or not, and case is nothing."""
    return name.lower().removesuffix(".")


def is_token(given: str, token: str) -> bool:
    """Compare tokens in a time that tells nothing."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _as_refusal(error: Exception, scope: Scope) -> Refusal:
    """Return what is answered to an error, and log one that is the program's."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ClientDisconnect):
        return Refusal(400, "The upload was cut off.")
    log.error("%s %s: %s", _method(scope), _route(scope), places(error))
    if _is_full(error):
        return disk_full()
    return Refusal(500, "The server failed.", "Look at its log, or try again.")


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, sqlite3.OperationalError):
        return "disk is full" in str(error)
    return isinstance(error, DiskFullError)


def _refused(error: Refusal, scope: Scope) -> Response:
    headers = {"Connection": "close"} | error.headers
    if scope["path"] == "/" and "text/html" in Headers(scope=scope).get("accept", ""):
        return HTMLResponse(_SORRY.format(error.message, error.remedy), error.status, headers)
    return JSONResponse(shown(error.message, error.remedy), error.status, headers)


def _method(scope: Scope) -> str:
    """Return the method of a request, as we count it; strangers can make up any number."""
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def _route(scope: Scope) -> str:
    """Return the pattern of a path; the path itself may hold what only its caller should know."""
    return getattr(scope.get("route"), "path", "other")
