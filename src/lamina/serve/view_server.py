"""A small web server for one viewer: some files, on this machine, for whoever has the address.

It answers as ``lamina serve`` does, without models. Nothing but the standard library is needed.
"""

import json
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lamina.serve.page import INDEX, STATIC

HOST = "127.0.0.1"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".glb": "model/gltf-binary",
}
_REMEDY = "Open the address that lamina view printed."


class ViewServer(ThreadingHTTPServer):
    """Serves the page and one finished job, to browsers that know the token.

    Args:
        job: What the page is told of the scan.
        files: Name -> makes the file if need be and returns where it is.
        port: A free one by default.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True

    def __init__(
        self, job: Mapping[str, Any], files: Mapping[str, Callable[[], Path]], port: int = 0
    ) -> None:
        super().__init__((HOST, port), _Handler)
        self.token = secrets.token_urlsafe(24)
        self.cookie = f"lamina_view_{self.server_port}"  # browsers share cookies between ports
        self.answers = {"/api/models": [], "/api/jobs": [job], f"/api/jobs/{job['id']}": job}
        self.paths = {f"/api/jobs/{job['id']}/files/{name}": make for name, make in files.items()}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that hang up, as they do when a page is closed or loaded anew."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where to point a browser; it carries the token."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lamina", ""

    def do_GET(self) -> None:
        """Answer with the page, a part of it, what is known of the scan, or a file of it."""
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        given = parse_qs(asked.query).get("token", [""])[0]
        if not self._is_local():
            self._refuse(HTTPStatus.FORBIDDEN, "This address is not served.")
        elif not self._is_known(given):
            self._refuse(HTTPStatus.UNAUTHORIZED, "The address lacks its token.")
        elif path == "/":
            self._send_file(INDEX, given)
        elif path.startswith("/static/") and path[8:] in {file.name for file in STATIC.iterdir()}:
            self._send_file(STATIC / path[8:])
        elif path in self.server.answers:
            self._send_json(HTTPStatus.OK, self.server.answers[path])
        elif path in self.server.paths:
            self._send_file(self.server.paths[path]())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests name the token."""

    def _is_local(self) -> bool:
        """Tell whether the browser asked for this machine by its own name, not by another's."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        return host in (HOST, "localhost")

    def _is_known(self, given: str) -> bool:
        known = self.server.token.encode()
        return any(
            secrets.compare_digest(token.encode(), known) for token in (given, self._cookie())
        )

    def _cookie(self) -> str:
        """Return our cookie's value, among those that other programs of this machine have set."""
        pairs = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self.server.cookie), "")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send_json(status, {"error": {"message": message, "remedy": _REMEDY}})

    def _send_json(self, status: HTTPStatus, data: Any) -> None:
        body = json.dumps(data).encode()
        self._send_head(status, "application/json", len(body))
        self.wfile.write(body)

    def _send_file(self, path: Path, token: str = "") -> None:
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        self._send_head(HTTPStatus.OK, kind, path.stat().st_size, token)
        with path.open("rb") as stream:
            shutil.copyfileobj(stream, self.wfile)

    def _send_head(self, status: HTTPStatus, kind: str, size: int, token: str = "") -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if token:
            kept = f"{self.server.cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
            self.send_header("Set-Cookie", kept)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()
