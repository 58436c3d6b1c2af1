"""The loop that segments each new series of an archive that a rule means, and stores the object.

What is made of a series is written down, in the outbox and in the table of states, before it is
stored. So whenever the program is killed, the same object, by the same UID, is stored or found to
be stored already. See ADR 0021.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lamina.errors import (
    ConfigError,
    DiskFullError,
    LaminaError,
    PacsError,
    ResourceError,
    UnreachableError,
)
from lamina.io.pacs import Archive, WebArchive, instance_of
from lamina.workflows.pacs.rule import Rule
from lamina.workflows.pacs.state import FAILED, LONGEST_DELAY_S, SEGMENTED, WAITING, Entry, State
from lamina.workflows.pacs.transfer import store_one

_LEAST_FREE_BYTES = 1 << 30
_LONGEST_PAUSE_S = 300.0
_FIRST_RETRY_S = 60
_OUTBOX, _SPOOL = "outbox", "spool"

Tell = Callable[[str], None]
"""Is told in a line what goes on; no line is about a patient."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often and how long.

    Raises:
        ConfigError: A number is below its least value.
    """

    every: float = 30.0
    """Seconds from one look at the archive to the next."""
    settle: float = 60.0
    """Seconds for which the number of a series' objects must stand still before it is taken."""
    tries: int = 3
    """After so many a series counts as failed; from one to the next the pause grows fourfold, to a
    day at most."""

    def __post_init__(self) -> None:
        if self.every <= 0 or self.settle < 0 or self.tries < 1:
            raise ConfigError(
                f"every = {self.every:g} must be above 0, settle = {self.settle:g} not below, "
                f"and tries = {self.tries} 1 or more."
            )


@dataclass(kw_only=True)
class Watcher:
    """The loop."""

    archive: WebArchive
    """Where series come from."""
    target: Archive
    """Where objects go."""
    segment: Callable[[Path, Path], Sequence[str]]
    """Takes the folder of a series' slices, and the file to write its object to; returns in what
    way the scan is unlike those of training, a sentence each."""
    model: str
    """SHA-256 of the model, for the table."""
    folder: Path
    """Of the table, the outbox, and series while they are worked on."""
    state: State
    """The table."""
    rule: Rule
    """Which series are meant."""
    pace: Pace
    tell: Tell
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    pause: Callable[[float], None] = time.sleep
    """Waits for some seconds."""
    tried: set[int] = field(default_factory=set, init=False)
    """Numbers of the series that were worked on."""
    stored: int = field(default=0, init=False)
    """Number of objects."""

    def __post_init__(self) -> None:
        for name in (_OUTBOX, _SPOOL):
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name).chmod(0o700)  # scans and objects are about patients
        self._tidy()

    def forever(self) -> None:
        """Look, work and pause until interrupted; an archive that is away is waited for.

        Raises:
            PacsError: At the first look, an archive refuses us; later this is waited for too.
        """
        self.tell(f"{self.archive.name}: watched; {len(self.state.entries())} series are known.")
        has_answered, is_away, failed = False, False, 0
        while True:
            stored = self.stored
            try:
                if not has_answered:
                    self.target.echo()
                present = self._look()
                has_answered = True
                self._work(present)
                if is_away:
                    self.tell(f"{self.archive.name}: answers again.")
                is_away, failed = False, 0
                self.pause(self.pace.every)
            except (PacsError, DiskFullError) as error:
                if not (has_answered or isinstance(error, UnreachableError | DiskFullError)):
                    raise
                is_away = isinstance(error, PacsError)
                failed = failed + 1 if self.stored == stored else 1
                delay = min(_LONGEST_PAUSE_S, 2 ** (failed - 1))
                self.tell(f"{_told(error)} Next try in {delay:.0f} s.")
                self.pause(delay)

    def once(self) -> None:
        """Work on what is there, wait once for what is still coming in, and end.

        Raises:
            DiskFullError: There is too little room for a series, or for the table.
            PacsError: The archive does not answer, or refuses us.
        """
        present = self._look()
        now = self.clock()
        left = [
            self.pace.settle - (now - entry.since)
            for entry in self.state.entries()
            if entry.status == WAITING and entry.uid in present and entry.tries == 0
        ]
        self._work(present)
        if (longest := max(left, default=0.0)) > 0:
            self.pause(max(0.0, longest - (self.clock() - now)))
            self._work(self._look())

    def _look(self) -> frozenset[str]:
        """Ask for series and note them; return those that are meant."""
        today = datetime.fromtimestamp(self.clock()).date()
        counted = [
            (one, self.archive.count(one))
            for one in self.archive.series(self.rule.filters(today))
            if self.rule.may_match(one)
        ]
        meant = [(one, count) for one, count in counted if self.rule.matches(one, count)]
        self.state.see(meant, self.clock())
        return frozenset(one.uid for one, _ in meant)

    def _work(self, present: frozenset[str]) -> None:
        for entry in self.state.ready(self.clock(), self.pace.settle, present):
            if not self._has_room():
                raise DiskFullError(f"{self.folder}: less than 1 GB of the disk is free.")
            self._take(entry)

    def _has_room(self) -> bool:
        return shutil.disk_usage(self.folder).free >= _LEAST_FREE_BYTES

    def _take(self, entry: Entry) -> None:
        """Bring one series as far as it goes; what is wrong with it stays its own matter."""
        self.tried.add(entry.number)
        if entry.status == WAITING and entry.tries >= self.pace.tries:  # may end us each time
            self._fail(entry, entry.reason)
            return
        self.state.begin(entry, self.clock())
        try:
            if entry.status == WAITING:
                self._segment(entry)
            self._store(entry)
        except (PacsError, DiskFullError) as error:
            if self._is_hindered_by(error):
                self.state.postpone(entry, self.clock())
                raise
            if self.state.get(entry.number).status == SEGMENTED:
                self._store_later(entry, _told(error))
            else:
                self._fail(entry, self._without_spool(_told(error), entry))
        except KeyboardInterrupt:
            self.state.postpone(entry, self.clock())
            raise
        except LaminaError as error:
            self._fail(entry, self._without_spool(str(error), entry))
        except MemoryError:
            self._fail(entry, "out of memory")
        except Exception as error:  # noqa: BLE001 - its text may quote headers, and is not told
            self._fail(entry, f"unexpected {type(error).__name__}")

    def _without_spool(self, reason: str, entry: Entry) -> str:
        """Leave out which file of the spool it was: it is gone, and its name may be a UID."""
        spool = str(self._spooled(entry))
        rest = reason.removeprefix(spool)
        return rest if rest == reason else rest.partition(": ")[2]

    def _segment(self, entry: Entry) -> None:
        began, folder = self.clock(), self._spooled(entry)
        made = self._object(entry)
        try:
            count = self.archive.fetch(entry.study, entry.uid, folder, entry.instances)
            flags = self.segment(folder, made)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.state.segmented(
            entry,
            self.clock(),
            instances=count,
            object=instance_of(made).uid,
            model=self.model,
            flags="\n".join(flags),
        )
        seconds = self.clock() - began
        unlike = " It is unlike the scans of training: see lamina pacs status." if flags else ""
        self.tell(f"Series {entry.number}: {count} objects segmented in {seconds:.1f} s.{unlike}")

    def _store(self, entry: Entry) -> None:
        made = self._object(entry)
        if not made.is_file():
            self.state.lost(entry, self.clock())
            raise ResourceError(f"{made}: has gone; the series is segmented again.")
        if not self.target.holds(instance_of(made)):
            store_one(self.target, made)
        self.state.stored(entry, self.clock())
        made.unlink()
        self.stored += 1
        self.tell(f"Series {entry.number}: stored.")

    def _fail(self, entry: Entry, reason: str) -> None:
        now = self.clock()
        tries = self.state.get(entry.number).tries
        delay = min(_FIRST_RETRY_S * 4 ** (tries - 1), LONGEST_DELAY_S)
        due = now + delay if tries < self.pace.tries else None
        self.state.failed(entry, now, reason, due)
        then = f"Try {tries} of {self.pace.tries}." if due else "It is not tried again."
        self.tell(f"Series {entry.number}: {reason} {then}")

    def _store_later(self, entry: Entry, reason: str) -> None:
        """Try again for as long as it takes: a full archive is no fault of the series."""
        now, tries = self.clock(), self.state.get(entry.number).tries
        delay = min(_FIRST_RETRY_S * 4 ** (tries - 1), _LONGEST_PAUSE_S)
        self.state.failed(entry, now, reason, now + delay)
        self.tell(f"Series {entry.number}: {reason} It is sent again in {delay:.0f} s.")

    def _is_hindered_by(self, error: PacsError | DiskFullError) -> bool:
        """Tell whether an archive is away, or the disk full though the series is off it again."""
        if isinstance(error, DiskFullError):
            return not self._has_room()
        try:
            self.archive.echo()
            self.target.echo()
        except PacsError:
            return True
        return False

    def _spooled(self, entry: Entry) -> Path:
        return self.folder / _SPOOL / str(entry.number)

    def _object(self, entry: Entry) -> Path:
        return self.folder / _OUTBOX / f"{entry.number}.dcm"

    def _tidy(self) -> None:
        """Remove what a killed program left: scans, and objects that nobody waits for."""
        shutil.rmtree(self.folder / _SPOOL)
        (self.folder / _SPOOL).mkdir(mode=0o700)
        kept = {
            self._object(entry)
            for entry in self.state.entries()
            if entry.status in (SEGMENTED, FAILED) and entry.object
        }
        for path in (self.folder / _OUTBOX).iterdir():
            if path not in kept:
                path.unlink()


def _told(error: PacsError | DiskFullError) -> str:
    """Return what is told of an error; the remedy of a full disk is for commands that end."""
    return error.message if isinstance(error, DiskFullError) else str(error)
