"""What the loop knows of each series, in SQLite: it outlives any end of the program.

A series is ``waiting`` until the number of its objects has stood still and it was segmented; then
its object lies in the outbox and it is ``segmented``; once the archive has taken the object it is
``stored``. After too many tries it is ``failed``. Nothing about a patient is kept but UIDs and what
is unusual about the scan.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from lamina.errors import ConfigError, DiskFullError, FileError
from lamina.io.pacs import Series

WAITING, SEGMENTED, STORED, FAILED = ("waiting", "segmented", "stored", "failed")
INTERRUPTED = "the program ended while it was at it"
LONGEST_DELAY_S = 86400.0
"""What is due later than this is so because the clock was set back."""

_FILE = "state.sqlite"
_VERSION = 2
_AFRESH = {"status": WAITING, "tries": 0, "due": 0.0, "reason": "", "object": "", "flags": ""}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (form TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    number INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    study TEXT NOT NULL,
    modality TEXT NOT NULL,
    instances INTEGER NOT NULL,
    since REAL NOT NULL,
    status TEXT NOT NULL DEFAULT 'waiting',
    tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    object TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    flags TEXT NOT NULL DEFAULT '',
    changed REAL NOT NULL
);
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a series; times are seconds since 1970."""

    number: int
    """By which logs call it."""
    uid: str
    study: str
    modality: str
    instances: int
    """Number of its objects when last counted; of those segmented, once they were."""
    since: float
    """When that number was first seen."""
    status: str
    tries: int
    due: float
    """Not to be tried again before."""
    reason: str
    """Why the last try failed."""
    object: str
    """SOPInstanceUID of what was made of it."""
    model: str
    """SHA-256 of the model that did."""
    flags: str
    """How the scan and what was found in it differ from those of training, a line each."""
    changed: float


class State:
    """The table, open for one program that writes it.

    Args:
        folder: Where it is, or will be.
        form: What is made of series; a table is about one form.

    Raises:
        FileError: The file is no such table, or cannot be written.
        ConfigError: It is about another form.
    """

    def __init__(self, folder: Path, form: str) -> None:
        self.path = folder / _FILE
        with self._guarded():
            self.path.touch(mode=0o600)  # which series there are is nobody else's matter either
            self.connection = sqlite3.connect(self.path, timeout=30)
        try:
            with self._guarded(), self.connection:
                known = self._opened(form)
            if known != form:
                raise ConfigError(
                    f"{folder}: remembers what was stored as {known}, not {form}.",
                    remedy="Choose another folder for --state.",
                )
        except BaseException:
            self.close()
            raise

    def _opened(self, form: str) -> str:
        """Make the tables where they are missing; return the form that they are about."""
        run = self.connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        _check_version(self.connection, self.path)
        self.connection.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")
        run("INSERT INTO about SELECT ? WHERE NOT EXISTS (SELECT * FROM about)", [form])
        return str(run("SELECT form FROM about").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def see(self, series: Iterable[tuple[Series, int]], now: float) -> None:
        """Take what an archive has: series, each with the number of its objects.

        A series that has grown since it was segmented waits anew.
        """
        with self._guarded(), self.connection:
            known = {entry.uid: entry for entry in self.entries()}
            for one, instances in series:
                entry = known.get(one.uid)
                if entry is None:
                    self.connection.execute(
                        "INSERT INTO series (uid, study, modality, instances, since, changed)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        [one.uid, one.study, one.modality, instances, now, now],
                    )
                elif instances > entry.instances or (
                    instances != entry.instances and entry.status == WAITING
                ):
                    self._set(entry, now, **_AFRESH, instances=instances, since=now)
                elif entry.since > now:  # the clock was set back
                    self._set(entry, now, since=now)

    def entries(self) -> list[Entry]:
        """Return all series, by number."""
        with self._guarded():
            return _entries(self.connection)

    def get(self, number: int) -> Entry:
        """Return one series."""
        with self._guarded():
            return _entries(self.connection, "WHERE number = ?", number)[0]

    def ready(self, now: float, settle: float, present: frozenset[str]) -> list[Entry]:
        """Return what is to be done now, the longest due first.

        Args:
            now: The time.
            settle: Seconds for which the number of objects must have stood still.
            present: UIDs of the series that were just seen; others cannot be had.
        """
        found = [
            entry
            for entry in self.entries()
            if (entry.due <= now or entry.due > now + LONGEST_DELAY_S)
            and (
                entry.status == SEGMENTED
                or (
                    entry.status == WAITING and entry.uid in present and now - entry.since >= settle
                )
            )
        ]
        return sorted(found, key=lambda entry: (entry.due, entry.number))

    def begin(self, entry: Entry, now: float) -> None:
        """Note that a try begins: if the program ends in it, it counts as one."""
        self._change(entry, now, tries=entry.tries + 1, reason=INTERRUPTED, due=now)

    def postpone(self, entry: Entry, now: float) -> None:
        """Take a try back that ended through no fault of the series."""
        self._change(entry, now, tries=entry.tries, reason=entry.reason, due=now)

    def segmented(self, entry: Entry, now: float, **made: object) -> None:
        """Note that the object of a series is in the outbox, and what of its entry is known now."""
        self._change(entry, now, status=SEGMENTED, **made)

    def lost(self, entry: Entry, now: float) -> None:
        """Note that the object is gone, and that the series must be segmented again."""
        self._change(entry, now, status=WAITING, object="")

    def stored(self, entry: Entry, now: float) -> None:
        """Note that the archive has the object."""
        self._change(entry, now, status=STORED, reason="")

    def failed(self, entry: Entry, now: float, reason: str, due: float | None) -> None:
        """Note why a try failed, and when the next is due, if there is one."""
        if due is None:
            self._change(entry, now, status=FAILED, reason=reason)
        else:
            self._change(entry, now, reason=reason, due=due)

    def retry(self, now: float) -> None:
        """Let all that failed be tried again."""
        for entry in self.entries():
            if entry.status == FAILED:
                status = SEGMENTED if entry.object else WAITING
                self._change(entry, now, status=status, tries=0, due=0)

    def _change(self, entry: Entry, now: float, **values: object) -> None:
        with self._guarded(), self.connection:
            self._set(entry, now, **values)

    def _set(self, entry: Entry, now: float, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in (*values, "changed"))
        self.connection.execute(
            f"UPDATE series SET {names} WHERE number = ?", [*values.values(), now, entry.number]
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with _guarded(self.path):
            yield


def read_state(folder: Path) -> list[Entry]:
    """Return what a loop knows, though it may be running.

    Raises:
        FileError: The folder holds no such table.
    """
    path = folder / _FILE
    if not path.is_file():
        raise FileError(f"{folder}: is no folder of lamina pacs watch.")
    with _guarded(path):
        connection = sqlite3.connect(path, timeout=30)
        try:
            _check_version(connection, path)
            return _entries(connection)
        finally:
            connection.close()


def _entries(connection: sqlite3.Connection, where: str = "", *values: object) -> list[Entry]:
    names = [field.name for field in fields(Entry)]
    told = f"SELECT {', '.join(names)} FROM series {where} ORDER BY number"
    rows = connection.execute(told, values)
    return [Entry(**dict(zip(names, row, strict=True))) for row in rows]


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise FileError(
            f"{path}: was written by another version of Lamina.",
            remedy="Choose another folder for --state.",
        )


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        kind = DiskFullError if "disk is full" in str(error) else FileError
        raise kind(
            f"{path}: cannot be read or written: {error}.",
            remedy="Free some space, or choose another folder for --state.",
        ) from error
