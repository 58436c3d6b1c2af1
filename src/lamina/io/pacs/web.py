"""DICOMweb: which series there are (QIDO-RS), series as files (WADO-RS), objects back (STOW-RS).

Source: DICOM PS3.18, 10.4 (retrieve), 10.5 (store) and 10.6 (search).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.errors import FileError, PacsError, UnreachableError
from lamina.files import atomic_path
from lamina.io.dicom_headers import plain
from lamina.io.pacs.access import Access, Address
from lamina.io.pacs.http import NothingThereError, speaking
from lamina.io.pacs.objects import (
    DUPLICATE,
    Instance,
    Sent,
    instance_of,
    is_uid,
    read_object,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    _Object = tuple[Instance, Dataset]

_PAGE = 500
"""Series asked for at a time."""
_REQUEST_BYTES = 1 << 26
"""Files sent at a time, unless one alone is larger."""
_AS_STORED = (("application/dicom", "*"),)
_Told = dict[str, dict[str, Any]]
"""A result of a search, in the JSON of DICOM."""
_FIELDS = {
    "uid": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
    "modality": "Modality",
    "description": "SeriesDescription",
    "body_part": "BodyPartExamined",
    "instances": "NumberOfSeriesRelatedInstances",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series in an archive."""

    uid: str
    study: str
    modality: str
    description: str
    body_part: str
    instances: int
    """Number of its objects; 0 where the archive does not tell."""


class WebArchive:
    """An archive that speaks DICOMweb.

    Args:
        address: Where it is.
        access: How to be let in.

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
        with speaking(self.address, self.access) as client:
            client.search_for_studies(limit=1)

    def series(self, filters: Mapping[str, str]) -> list[Series]:
        """Return the series that match, as far as the archive can tell.

        Args:
            filters: Keywords of tags and what they must be, as QIDO-RS takes them.

        Raises:
            PacsError: It does not answer, or refuses us.
        """
        with speaking(self.address, self.access) as client:
            told = _paged(
                lambda limit, offset: client.search_for_series(
                    limit=limit,
                    offset=offset,
                    fields=list(_FIELDS.values()),
                    search_filters=dict(filters),
                ),
                "SeriesInstanceUID",
            )
            found = [_series(one) for one in told]
        return [one for one in found if is_uid(one.uid) and is_uid(one.study)]

    def count(self, series: Series) -> int:
        """Return how many objects a series has, asking where the search did not tell.

        Raises:
            PacsError: It does not answer, or refuses us.
        """
        if series.instances:
            return series.instances
        with speaking(self.address, self.access) as client:
            told = _paged(
                lambda limit, offset: client.search_for_instances(
                    series.study, series.uid, limit=limit, offset=offset
                ),
                "SOPInstanceUID",
            )
            return len(told)

    def fetch(self, study: str, series: str, folder: Path, expected: int = 0) -> int:
        """Copy a series into a new folder, as it is stored there; whole or not at all.

        Args:
            study: Its StudyInstanceUID.
            series: Its SeriesInstanceUID.
            folder: Gets one file for each object, named after its UID.
            expected: The least number of objects that it has.

        Returns:
            The number of objects.

        Raises:
            PacsError: It does not answer, refuses us, or sends something else.
            FileError: The folder cannot be written.
        """
        with atomic_path(folder) as part:
            part.mkdir()
            with speaking(self.address, self.access) as client:
                for one in client.iter_series(study, series, media_types=_AS_STORED):
                    uid = str(one.SOPInstanceUID)
                    if not is_uid(uid) or str(one.SeriesInstanceUID) != series:
                        raise PacsError(f"{self.name}: sends objects that were not asked for.")
                    one.save_as(part / f"{uid}.dcm", enforce_file_format=True)
            received = sum(1 for _ in part.iterdir())
            if received < max(expected, 1):
                raise PacsError(
                    f"{self.name}: sends {received} of a series' {expected} objects.",
                    remedy="Look at the archive; the series may be damaged there.",
                )
        return received

    def holds(self, instance: Instance) -> bool:
        """Tell whether it has an object; see :class:`lamina.io.pacs.Archive`."""
        try:
            with speaking(self.address, self.access) as client:
                found = client.search_for_instances(
                    instance.study,
                    instance.series,
                    limit=1,
                    search_filters={"SOPInstanceUID": instance.uid},
                )
        except NothingThereError:
            return False
        return bool(found)

    def store(self, files: list[Path], sent: Sent) -> None:
        """Store files; see :class:`lamina.io.pacs.Archive`."""
        for batch in _batches(files):
            read: dict[Path, _Object] = {}
            for path in batch:
                try:
                    read[path] = (instance_of(path), read_object(path))
                except FileError as error:
                    sent(path, str(error))
            refused = self._send(list(read.values())) if read else {}
            for path, (instance, _) in read.items():
                sent(path, refused.get(instance.uid, ""))

    def _send(self, objects: Sequence["_Object"]) -> dict[str, str]:
        """Store objects; return why some were not, by their UIDs."""
        try:
            with speaking(self.address, self.access) as client:
                response = client.store_instances([dataset for _, dataset in objects])
                failed = response.get("FailedSOPSequence") or []
                codes = {str(f.ReferencedSOPInstanceUID): f.get("FailureReason") for f in failed}
                done = response.get("ReferencedSOPSequence") or []
                stored = {str(one.ReferencedSOPInstanceUID) for one in done}
        except UnreachableError:
            raise
        except PacsError as error:  # of all, where one of them is to blame
            if len(objects) == 1:
                instance = objects[0][0]
                return {} if self._shows(instance) else {instance.uid: str(error)}
            return {uid: why for one in objects for uid, why in self._send([one]).items()}
        stored |= {uid for uid, code in codes.items() if code == DUPLICATE}
        return {
            instance.uid: self._fault(codes, instance.uid)
            for instance, _ in objects
            if instance.uid not in stored and not self._shows(instance)
        }

    def _shows(self, instance: Instance) -> bool:
        """Tell whether it has an object that it did not confirm, which it may have had before."""
        try:
            return self.holds(instance)
        except UnreachableError:
            raise
        except PacsError:  # what it said of the object itself tells more
            return False

    def _fault(self, codes: Mapping[str, int | None], uid: str) -> str:
        if uid not in codes:
            return f"{self.name}: does not say that it stored it."
        return f"{self.name}: does not store it (reason {int(codes[uid] or 0):04X}H)."


def _paged(search: Callable[[int, int], list[_Told]], key: str) -> list[_Told]:
    """Return all results of a search, page by page, each once by one of its tags.

    Archives may send smaller pages than they are asked for, or know no pages at all.
    """
    found: dict[str, _Told] = {}
    while page := search(_PAGE, len(found)):
        before = len(found)
        found.update((_text(one, key), one) for one in page)
        if len(found) == before:
            break
    return list(found.values())


def _series(told: _Told) -> Series:
    found = {name: _text(told, keyword) for name, keyword in _FIELDS.items()}
    instances = found.pop("instances")
    return Series(**found, instances=int(instances) if instances.isdecimal() else 0)


def _text(told: _Told, keyword: str) -> str:
    """Return a tag's first value as a line of text, empty where there is none."""
    from pydicom.datadict import tag_for_keyword

    values = told.get(f"{tag_for_keyword(keyword):08X}", {}).get("Value") or [""]
    return plain(values[0]).strip()


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    filled = 0
    for path in files:
        size = path.stat().st_size if path.is_file() else 0
        if batch and filled + size > _REQUEST_BYTES:
            yield batch
            batch, filled = [], 0
        batch.append(path)
        filled += size
    if batch:
        yield batch
