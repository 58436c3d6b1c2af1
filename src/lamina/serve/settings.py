"""What a server is told when it starts."""

import ipaddress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lamina.errors import ConfigError

_SHORTEST_TOKEN = 16
_UNPACKED = 4
"""An archive may hold so many times what an upload may."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Address, secret and limits of a server.

    Raises:
        ConfigError: A limit is not above zero, the token is weak, or there is none where others
            than this machine are listened to.
    """

    data: Path
    """Folder of the queue and its files; nobody else may read it."""
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    """What clients prove themselves with; ``None`` lets everybody in."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, besides localhost and ``host``, by which clients may call the server."""
    workers: int = 1
    max_upload_bytes: int = 2 * 10**9
    max_files: int = 20_000
    max_queue: int = 64
    """Jobs that may wait, uploads that come in included."""
    max_tries: int = 3
    """How often a job is begun whose worker dies."""
    job_timeout_s: float = 3600.0
    keep_s: float = 7 * 86400.0
    """How long scans and results are kept after their job has ended."""
    upload_idle_s: float = 60.0
    """Longest silence within an upload."""
    request_s: float = 30.0
    """How long a connection is kept on which no request, or not all of its head, comes."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_upload_bytes", "max_files", "max_queue", "max_tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: must be at least 1.")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port {self.port}: must be from 0 to 65535.")
        for name in self.allowed_hosts:
            if not name or set(name) & set(":/"):
                raise ConfigError(
                    f"--allow-host {name!r}: must be a name alone, without scheme, port or path.",
                    remedy="Such as lamina.example; addresses are known anyway.",
                )
        if self.token is None:
            if not is_loopback(self.host):
                raise ConfigError(
                    f"host {self.host}: without a token, whoever reaches it could read all scans.",
                    remedy="Listen on 127.0.0.1, or leave --no-token out.",
                )
        elif len(self.token) < _SHORTEST_TOKEN or not self.token.isascii():
            raise ConfigError(
                f"token: must be at least {_SHORTEST_TOKEN} ASCII characters.",
                remedy="Leave it out, and one is made up.",
            )
        elif not self.token.replace("-", "").replace("_", "").isalnum():
            raise ConfigError("token: only letters, digits, - and _ are safe in an address.")

    @property
    def max_unpacked_bytes(self) -> int:
        """What an archive may unpack to."""
        return _UNPACKED * self.max_upload_bytes

    @property
    def cookie(self) -> str:
        """Name of the cookie, its own for each token: browsers do not keep ports apart."""
        return f"lamina-{sha256((self.token or '').encode()).hexdigest()[:8]}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
