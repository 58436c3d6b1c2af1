"""A PACS, the archive of a hospital: series from it by DICOMweb, objects to it by that or by DIMSE.

Nothing here logs, and no message holds what an archive says about a patient; other packages' logs
are switched off while they speak for us. Every wait has a limit.
"""

from pathlib import Path
from typing import Protocol

from lamina.io.pacs.access import Access, Address, address_of
from lamina.io.pacs.dimse import DimseArchive
from lamina.io.pacs.objects import Instance, Sent, instance_of
from lamina.io.pacs.web import Series, WebArchive

__all__ = [
    "Access",
    "Address",
    "Archive",
    "DimseArchive",
    "Instance",
    "Sent",
    "Series",
    "WebArchive",
    "address_of",
    "archive_at",
    "instance_of",
]


class Archive(Protocol):
    """What takes objects."""

    @property
    def name(self) -> str:
        """Its address, for messages."""

    def echo(self) -> None:
        """Ask whether it answers.

        Raises:
            PacsError: It does not, or refuses us.
        """

    def store(self, files: list[Path], sent: Sent) -> None:
        """Store files, telling of each what became of it.

        Raises:
            PacsError: It does not answer, or refuses us.
        """

    def holds(self, instance: Instance) -> bool:
        """Tell whether it has an object; one that cannot be asked has not.

        Raises:
            PacsError: It does not answer, or refuses us.
        """


def archive_at(url: str, access: Access) -> Archive:
    """Return the archive at an address.

    Args:
        url: ``https://HOST/ROOT`` (or ``http``) of a DICOMweb service, or ``dicom://AET@HOST:PORT``
            (with TLS: ``dicoms``) of a DICOM node.
        access: How to be let in.

    Raises:
        ConfigError: It is no such address, or does not go with the access.
        FileError: A file that the access names is missing.
    """
    address = address_of(url)
    return WebArchive(address, access) if address.is_web else DimseArchive(address, access)
