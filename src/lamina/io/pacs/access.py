"""Where an archive is, and how one is let in.

Secrets come from a file or an environment variable that an option names, never from an option
itself: command lines can be read by everyone on the machine, and are kept in logs. They are read
each time a connection is made, so that a token may be renewed while a program runs.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from lamina.errors import ConfigError, FileError

_PORTS = {"http": 80, "https": 443, "dicom": 104, "dicoms": 2762}
_ANY_TITLE = "ANY-SCP"
_LONGEST_TITLE = 16


@dataclass(frozen=True, kw_only=True)
class Address:
    """Of an archive."""

    scheme: str
    host: str
    port: int
    path: str
    title: str
    """AE title of a DICOM node."""

    @property
    def is_web(self) -> bool:
        """Whether it speaks DICOMweb."""
        return self.scheme.startswith("http")

    @property
    def is_encrypted(self) -> bool:
        """Whether it is spoken with by TLS, which looks at its certificate."""
        return self.scheme in ("https", "dicoms")

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can listen."""
        return self.is_encrypted or self.host in ("localhost", "127.0.0.1", "::1")

    def __str__(self) -> str:
        """Return it as it is written."""
        title = "" if self.is_web else f"{quote(self.title, safe='')}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] and self.is_web else f":{self.port}"
        return f"{self.scheme}://{title}{host}{port}{self.path}"


def is_title(text: str) -> bool:
    """Tell whether a text can be an AE title (PS3.5, 6.2: ASCII, no backslash, not only spaces)."""
    return (
        0 < len(text.strip()) <= len(text) <= _LONGEST_TITLE
        and text.isascii()
        and text.isprintable()
        and "\\" not in text
    )


def address_of(url: str) -> Address:
    """Return the parts of an address.

    Raises:
        ConfigError: It is none, or holds a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(
            "--url: is no address of an archive.",
            remedy="Such as https://pacs.example/dicom-web, or dicom://AETITLE@pacs.example:104.",
        )
    is_web = parts.scheme.startswith("http")
    if parts.password or (is_web and parts.username) or parts.query or parts.fragment:
        raise ConfigError(
            "--url: holds more than an address; others can read it.",
            remedy="Give a user by --user and a password or token by --secret.",
        )
    title = unquote(parts.username or _ANY_TITLE)
    if not is_title(title) or (not is_web and parts.path.strip("/")):
        raise ConfigError(
            f"--url {url}: an AE title has up to {_LONGEST_TITLE} ASCII letters; no path follows.",
            remedy="Such as dicom://AETITLE@pacs.example:104.",
        )
    return Address(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        path=parts.path.rstrip("/"),
        title=title,
    )


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to be let in.

    Raises:
        ConfigError: The secret is not told as it must be, or a limit is not positive.
        FileError: The file of certificates is missing.
    """

    user: str = ""
    """With it the secret is a password; without, a bearer token."""
    secret: str = field(default="", repr=False)
    """``file:PATH`` or ``env:NAME``: where the secret is."""
    ca: Path | None = None
    """Certificates to trust, PEM, in place of those that are publicly trusted."""
    timeout: float = 60.0
    """Seconds without an answer after which we give up."""
    title: str = "LAMINA"
    """Our own AE title."""

    def __post_init__(self) -> None:
        kind, colon, where = self.secret.partition(":")
        if self.secret and not (colon and where and kind in ("file", "env")):
            raise ConfigError(
                "--secret: must say where the secret is, and is not the secret.",
                remedy="Such as file:/etc/lamina/pacs-token or env:PACS_TOKEN.",
            )
        if self.user and not self.secret:
            raise ConfigError("--user: needs --secret, which says where the password is.")
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"--timeout {self.timeout:g}: must be seconds above 0.")
        if not is_title(self.title):
            raise ConfigError(
                f"--aet {self.title!r}: must have 1 to {_LONGEST_TITLE} ASCII letters."
            )
        if self.ca is not None and not self.ca.is_file():
            raise FileError(f"{self.ca}: no such file of certificates.")

    def check(self, address: Address) -> None:
        """Refuse what an archive is never told or asked for, and so would protect nobody.

        Raises:
            ConfigError: There is such.
        """
        if self.secret and not address.is_web:
            raise ConfigError(
                f"--secret: {address} has no users and no passwords.",
                remedy="Leave out --user and --secret; DICOM nodes go by --aet.",
            )
        if self.ca and not address.is_encrypted:
            raise ConfigError(
                f"--ca: {address} is not encrypted, and shows no certificate.",
                remedy=f"Give an address that starts with {address.scheme}s://, or leave out --ca.",
            )

    def read_secret(self) -> str:
        """Return the secret, empty where there is none.

        Raises:
            ConfigError: The variable is not set.
            FileError: The file cannot be read, or is empty.
        """
        kind, _, where = self.secret.partition(":")
        if kind == "env":
            if not (found := os.environ.get(where, "").strip()):
                raise ConfigError(f"--secret env:{where}: the variable is not set.")
            return found
        if not kind:
            return ""
        try:
            found = Path(where).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{where}: the secret in it cannot be read.") from error
        if not found:
            raise FileError(f"{where}: is empty; it should hold a secret.")
        return found
