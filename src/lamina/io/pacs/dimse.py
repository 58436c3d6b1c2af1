"""DIMSE, DICOM's own protocol: is a node there (C-ECHO), objects to it (C-STORE).

Objects go as they are encoded, or in the encoding that every node must take (Implicit VR Little
Endian; PS3.5, 10.1) where a node takes no other and they are not compressed.

Source: DICOM PS3.4, annexes A (verification) and B (storage); PS3.7, annex C (status).
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.errors import FileError, PacsError, UnreachableError
from lamina.io.pacs.access import Access, Address
from lamina.io.pacs.objects import DUPLICATE, Instance, Sent, instance_of, read_object, silent

if TYPE_CHECKING:
    from pynetdicom.association import Association

_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_VERIFICATION = ("1.2.840.10008.1.1", _IMPLICIT)
_WARNINGS = range(0xB000, 0xC000)
_KINDS = 60
"""Kinds of objects offered at a time, in up to two encodings; the protocol has room for 128."""

_Kind = tuple[str, str]
"""Class and transfer syntax of objects."""


class DimseArchive:
    """A DICOM node that takes objects.

    Args:
        address: Where it is.
        access: Our own AE title, how long to wait, and whose certificates to trust.

    Raises:
        ConfigError: They do not go together.
    """

    def __init__(self, address: Address, access: Access) -> None:
        access.check(address)
        self.address = address
        self.access = access
        self.name = str(address)

    def echo(self) -> None:
        """Ask whether it answers; see :class:`lamina.io.pacs.Archive`."""
        with self._association(set()) as association:
            self._check(_status(association.send_c_echo()))

    def holds(self, instance: Instance) -> bool:
        """Tell nothing: nodes are not asked; see :class:`lamina.io.pacs.Archive`."""
        del instance
        return False

    def store(self, files: list[Path], sent: Sent) -> None:
        """Store files; see :class:`lamina.io.pacs.Archive`."""
        kinds: dict[Path, _Kind] = {}
        for path in files:
            try:
                instance = instance_of(path)
                kinds[path] = (instance.sop_class, instance.transfer_syntax)
            except FileError as error:
                sent(path, str(error))
        for batch in _batches(kinds):
            with self._association(set(batch.values())) as association:
                for path, kind in batch.items():
                    sent(path, self._send(association, path, kind))

    def _send(self, association: "Association", path: Path, kind: _Kind) -> str:
        """Store a file; return why it was not."""
        accepted = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in association.accepted_contexts
        }
        if not _offered(kind) & accepted:
            return f"{self.name}: takes no objects of class {kind[0]} encoded as {kind[1]}."
        try:
            self._check(_status(association.send_c_store(read_object(path))))
        except UnreachableError:
            raise
        except (FileError, PacsError) as error:
            return str(error)
        except RuntimeError:  # it has gone away since
            raise UnreachableError(f"{self.name}: broke off.") from None
        except (AttributeError, LookupError, TypeError, ValueError):
            return f"{path}: is damaged and cannot be sent."
        return ""

    def _check(self, status: int | None) -> None:
        if status is None:
            raise UnreachableError(f"{self.name}: broke off, or no answer in time.")
        if status not in (0, DUPLICATE, *_WARNINGS):
            raise PacsError(f"{self.name}: refuses (status {status:04X}H).")

    @contextmanager
    def _association(self, kinds: set[_Kind]) -> Iterator["Association"]:
        """Yield a conversation about objects of some kinds, even if the node takes none of them."""
        from pynetdicom import AE, build_context

        offered = {_VERIFICATION}.union(*map(_offered, kinds))
        wait = self.access.timeout
        node = AE(ae_title=self.access.title)
        node.acse_timeout = node.dimse_timeout = node.network_timeout = wait
        node.connection_timeout = min(wait, 10.0)
        with silent():
            try:
                association = node.associate(
                    self.address.host,
                    self.address.port,
                    contexts=[build_context(*each) for each in sorted(offered)],
                    ae_title=self.address.title,
                    tls_args=self._tls(),
                )
            except (OSError, UnicodeError):  # its name is not known
                raise self._away() from None
            if not association.is_established:
                raise self._refusal(association)
            try:
                yield association
            finally:
                if association.is_established:
                    association.release()

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        if self.address.scheme != "dicoms":
            return None
        try:
            trusted = ssl.create_default_context(cafile=self.access.ca)
        except ssl.SSLError as error:
            raise FileError(f"{self.access.ca}: holds no certificates.") from error
        return trusted, self.address.host

    def _refusal(self, association: "Association") -> PacsError:
        if association.is_rejected:
            return PacsError(
                f"{self.name}: does not let us in as {self.access.title!r}.",
                remedy="Check both AE titles; nodes often must be told of those that may call.",
            )
        return self._away()

    def _away(self) -> UnreachableError:
        if self.address.scheme == "dicoms":
            return UnreachableError(
                f"{self.name}: cannot be reached, speaks no DICOM by TLS, or is not trusted.",
                remedy="Give the certificate of who signed its own by --ca.",
            )
        return UnreachableError(f"{self.name}: cannot be reached, or speaks no DICOM.")


def _offered(kind: _Kind) -> set[_Kind]:
    """Return how objects of a kind may be sent."""
    sop_class, transfer_syntax = kind
    return {kind, (sop_class, _IMPLICIT)} if transfer_syntax == _EXPLICIT else {kind}


def _status(response: object) -> int | None:
    status = getattr(response, "Status", None)
    return None if status is None else int(status)


def _batches(kinds: Mapping[Path, _Kind]) -> Iterator[dict[Path, _Kind]]:
    """Yield files of not too many kinds at a time."""
    every = sorted(set(kinds.values()))
    for first in range(0, len(every), _KINDS):
        some = set(every[first : first + _KINDS])
        yield {path: kind for path, kind in kinds.items() if kind in some}
