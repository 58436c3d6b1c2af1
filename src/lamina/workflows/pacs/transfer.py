"""Pull, push and echo: series out of an archive, objects into it, and whether it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lamina.errors import ConfigError, DatasetError, FileError, LaminaError, PacsError
from lamina.files import locked, remove_parts
from lamina.io.pacs import Access, Archive, Series, WebArchive, address_of, archive_at
from lamina.io.pacs.objects import object_files
from lamina.workflows import Progress, no_progress
from lamina.workflows.pacs.rule import Rule


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A series that was asked for."""

    series: str
    modality: str
    instances: int
    """Number of its files; 0 where it failed."""
    folder: str
    """Name of its folder."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What was copied out of an archive."""

    out: Path
    series: tuple[Pulled, ...]

    @property
    def failures(self) -> dict[str, str]:
        """SeriesInstanceUID -> why it could not be copied."""
        return {one.series: one.error for one in self.series if one.error}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        series = [asdict(one) for one in self.series]
        return {"out": str(self.out), "failures": self.failures, "series": series}


@dataclass(frozen=True, kw_only=True)
class Push:
    """What was sent to an archive."""

    archive: str
    files: Mapping[Path, str]
    """Each file, and why it was not stored; empty where it was."""

    @property
    def failures(self) -> dict[str, str]:
        """File -> why it was not stored."""
        return {str(path): error for path, error in self.files.items() if error}

    @property
    def stored(self) -> int:
        """Number of files that were stored."""
        return len(self.files) - len(self.failures)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"archive": self.archive, "stored": self.stored, "failures": self.failures}


def web_archive(url: str, access: Access) -> WebArchive:
    """Return the archive at an address of DICOMweb.

    Raises:
        ConfigError: It is no such address, or does not go with the access.
    """
    address = address_of(url)
    if not address.is_web:
        raise ConfigError(
            f"--url {address}: series are searched and copied by DICOMweb only.",
            remedy="Give the archive's https address.",
        )
    return WebArchive(address, access)


def echo(url: str, access: Access) -> str:
    """Ask whether an archive answers and lets us in; return its address.

    Raises:
        ConfigError, FileError: Address or access are wrong.
        PacsError: It does not.
    """
    archive = archive_at(url, access)
    archive.echo()
    return archive.name


def pull(
    url: str,
    out: str | Path,
    rule: Rule,
    *,
    access: Access,
    study: str = "",
    series: str = "",
    patient: str = "",
    progress: Progress = no_progress,
) -> Pull:
    """Copy series out of an archive, each into a folder named after its UID.

    Those that are in ``out`` already are left as they are; if they have grown since, that is an
    error of theirs, and the others go on.

    Args:
        url: Of the archive, which speaks DICOMweb.
        out: The folder of the folders.
        rule: Which series are meant.
        access: How to be let in.
        study: Only those of the study of this UID.
        series: Only the one of this UID.
        patient: Only those of the patient of this PatientID.
        progress: Called after each series.

    Raises:
        ConfigError, FileError: Address or access are wrong, or ``out`` cannot be written.
        PacsError: The archive does not answer, or refuses us.
        DatasetError: It has no such series.
    """
    out = Path(out)
    archive = web_archive(url, access)
    asked = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "PatientID": patient}
    filters = rule.filters(date.today()) | {tag: value for tag, value in asked.items() if value}
    meant = [
        (one, count)
        for one in archive.series(filters)
        if rule.may_match(one) and rule.matches(one, count := archive.count(one))
    ]
    if not meant:
        raise DatasetError(f"{archive.name}: has no series that is meant.")
    found = []
    with locked(out):
        remove_parts(out)
        for done, (one, count) in enumerate(meant):
            progress(done, len(meant), f"series {done + 1}")
            found.append(_pulled(archive, one, count, out / one.uid))
    return Pull(out=out, series=tuple(found))


def _pulled(archive: WebArchive, series: Series, count: int, folder: Path) -> Pulled:
    error, instances = "", 0
    try:
        if folder.exists():
            instances = sum(1 for _ in folder.iterdir())
            if instances < count:
                raise FileError(
                    f"{folder}: holds {instances} files, and the archive {count}.",
                    remedy="Remove the folder to copy the series again.",
                )
        else:
            instances = archive.fetch(series.study, series.uid, folder, count)
    except LaminaError as problem:
        error, instances = str(problem), 0
    return Pulled(
        series=series.uid,
        modality=series.modality,
        instances=instances,
        folder=folder.name,
        error=error,
    )


def push(
    url: str, paths: Sequence[str | Path], *, access: Access, progress: Progress = no_progress
) -> Push:
    """Send DICOM files to an archive, by STOW-RS or C-STORE as its address says.

    A file that is refused is listed with its reason and the others go on. Sending again what the
    archive has already does no harm.

    Args:
        url: Of the archive.
        paths: Files, and folders of them.
        access: How to be let in.
        progress: Called after each file.

    Raises:
        ConfigError, FileError: Address or access are wrong, or a path does not exist.
        DatasetError: There are no files.
        PacsError: The archive does not answer, or refuses us, before anything is sent.
    """
    archive = archive_at(url, access)
    files = object_files([Path(path) for path in paths])
    archive.echo()
    outcomes: dict[Path, str] = {}

    def sent(path: Path, error: str) -> None:
        outcomes[path] = error
        progress(len(outcomes), len(files), path.name)

    try:
        archive.store(files, sent)
    except PacsError as error:
        outcomes = {path: outcomes.get(path, str(error)) for path in files}
    return Push(archive=archive.name, files=outcomes)


def store_one(archive: Archive, path: Path) -> None:
    """Store one file.

    Raises:
        PacsError: It is not stored.
    """
    told: list[str] = []
    archive.store([path], lambda _, error: told.append(error))
    if told != [""]:
        raise PacsError(told[0] if told else f"{archive.name}: does not say that it stored it.")
