"""Many scans through one model: one is read, one segmented and one written at a time."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.errors import LaminaError, first_line
from lamina.files import atomic_path, sha256
from lamina.folders.model import Model
from lamina.folders.prediction import Outcome, place_of, stamp_of, write_record
from lamina.folders.probabilities import hidden_place, probabilities_of, room_for
from lamina.volume import Volume
from lamina.workflows import Progress
from lamina.workflows.steps.output import Output
from lamina.workflows.steps.quality import CheckedModel

log = logging.getLogger(__name__)

_Tell = Callable[[float, str], None]


Elsewhere = Callable[[Sequence[Case]], Iterator[tuple[Case, Outcome | LaminaError]]]
"""Yields every case with what became of it."""


@dataclass(frozen=True)
class _Step:
    """A scan after reading or after segmenting; without it where that failed."""

    volume: Volume | None
    grid: Volume | None = None
    """What the segmentation is laid on; the file's own where the case tells another size."""
    quality: Mapping[str, Any] = field(default_factory=dict)
    """How much there is of each structure, and what is unusual."""
    stamp: str = ""
    """Of the scan's files, taken before they were read."""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Segments scans into one folder, which no one else writes to, and keeps its record."""

    model: Model
    out: Path
    about: Mapping[str, str]
    """The model's file and SHA-256."""
    output: Output
    """The form that segmentations take."""
    settings: Mapping[str, Any]
    """What else segmentations depend on."""
    with_probabilities: bool = False
    read_ahead: bool = True
    """Whether a scan is read while the one before it is segmented."""
    resume: bool = False
    """Whether scans are left out that were segmented just so before."""
    spared: frozenset[str] = frozenset()
    """Names of files that entries which stay speak of, such as those of another format."""
    elsewhere: Elsewhere | None = None
    """What segments them, each in its :func:`own_folder`, if not this process."""

    @cached_property
    def _checked(self) -> CheckedModel:
        return CheckedModel.of(self.model)

    def run(
        self,
        cases: Sequence[Case],
        kept: Sequence[Mapping[str, Any]],
        earlier: Sequence[Mapping[str, Any]],
        progress: Progress,
    ) -> tuple[Outcome, ...]:
        """Segment all cases, each in its turn.

        Args:
            cases: Their segmentations have names of their own.
            kept: Entries of the record that stay.
            earlier: Entries of these cases, which stay until it is their turn.
            progress: Called after each window and each scan.

        Raises:
            FileError: The record cannot be written, or the disk is full.
        """
        entries: dict[str, Mapping[str, Any]] = {entry["case_id"]: entry for entry in earlier}
        outcomes = {
            case.case_id: Outcome.of(entries[case.case_id])
            for case in cases
            if self.resume and case.case_id in entries and self._is_done(case, entries)
        }
        left = [case for case in cases if case.case_id not in outcomes]
        first, labels = len(outcomes), self.model.bundle.plan.labels.as_dict()

        def note(outcome: Outcome | None = None) -> None:
            if outcome is not None:
                outcomes[outcome.case_id] = outcome
                entries[outcome.case_id] = asdict(outcome)
            listed = [entries[case.case_id] for case in cases if case.case_id in entries]
            write_record(self.out, self.about, labels, [*kept, *listed])

        def tell(done: float, what: str) -> None:
            progress(first + done, len(cases), what)

        note()
        if self.elsewhere is None:
            self._overlapped(left, note, tell)
        else:
            self._shared_out(self.elsewhere, left, note, tell)
        return tuple(outcomes[case.case_id] for case in cases)

    def _overlapped(
        self, cases: Sequence[Case], note: Callable[[Outcome], None], tell: _Tell
    ) -> None:
        written: Future[None] | None = None
        coming: Future[_Step] | None = None
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            for done, case in enumerate(cases):
                step = (coming or reader.submit(self._read, case)).result()
                coming = None
                if self.read_ahead and done + 1 < len(cases):
                    coming = reader.submit(self._read, cases[done + 1])
                step = self._segment(case, step, partial(_within, tell, done, case.case_id))
                if written is not None:
                    written.result()
                written = writer.submit(self._write, case, step, note)
                tell(done + 1, case.case_id)
            if written is not None:
                written.result()

    def _shared_out(
        self,
        elsewhere: Elsewhere,
        cases: Sequence[Case],
        note: Callable[[Outcome], None],
        tell: _Tell,
    ) -> None:
        for done, (case, outcome) in enumerate(elsewhere(cases), start=1):
            self._clear(case)
            if isinstance(outcome, LaminaError):
                note(replace(self._outcome(case), error=str(outcome)))
            else:
                note(outcome)
                folder = own_folder(self.out, case)
                for name in filter(None, (outcome.segmentation, outcome.probabilities)):
                    (folder / name).replace(self.out / name)
                shutil.rmtree(folder)
            tell(done, case.case_id)

    def _read(self, case: Case) -> _Step:
        def read() -> _Step:
            stamp = stamp_of(case)
            self.output.check(case, self.model.bundle.plan.labels)
            stored = case.read_stored_image(self.model.bundle.plan.channels)
            image = case.sized(stored)
            return _Step(image, self.output.grid(image, stored), stamp=stamp)

        return _attempted(case, read, _Step(None))

    def _segment(self, case: Case, read: _Step, on_window: Callable[[int, int], None]) -> _Step:
        image, grid = read.volume, read.grid
        if image is None or grid is None:
            return read

        def segment() -> _Step:
            filled = None
            if self.with_probabilities:
                shape = self.model.bundle.plan.num_outputs, *image.spatial_shape
                filled = room_for(self.out / probabilities_of(case.case_id), shape)
            found, quality = self._checked.segment(image, on_window, filled)
            return _Step(found.laid_on(grid), quality=quality, stamp=read.stamp)

        return _attempted(case, segment, read)

    def _write(self, case: Case, found: _Step, note: Callable[[Outcome], None]) -> None:
        began = time.perf_counter()
        outcome, told = self._outcome(case), self.out / probabilities_of(case.case_id)

        def write() -> _Step:
            assert found.volume is not None
            name = self.output.name(case, found.volume.unit)
            with atomic_path(self.out / name) as part:
                labels = self.model.bundle.plan.labels
                self.output.write(found.volume, case, labels, self.about["sha256"], part)
                self._clear(case)
                # Files are in the record before they are in the folder: whenever this process is
                # killed, they are known to be its own.
                note(
                    replace(
                        outcome,
                        segmentation=name,
                        seconds=round(found.seconds + time.perf_counter() - began, 2),
                        sha256=sha256(part),
                        stamp=found.stamp,
                        probabilities=told.name if self.with_probabilities else None,
                        **found.quality,
                    )
                )
                if self.with_probabilities:
                    hidden_place(told).replace(told)
            return _Step(None)

        last = found if found.error else _attempted(case, write, found)
        if last.error:
            self._clear(case)  # no older model speaks for it
            hidden_place(told).unlink(missing_ok=True)
            note(replace(outcome, error=last.error, seconds=round(last.seconds, 2)))

    def _outcome(self, case: Case) -> Outcome:
        """Return what is known of a case before anything has become of it."""
        return Outcome(
            case_id=case.case_id,
            image=place_of(case),
            segmentation=None,
            seconds=0.0,
            model=self.about["sha256"],
            settings=dict(self.settings),
            case=case.as_dict() if case.label else None,
        )

    def _clear(self, case: Case) -> None:
        """Remove what an earlier prediction left of a case."""
        for name in names_of(case, self.output) - self.spared:
            (self.out / name).unlink(missing_ok=True)

    def _is_done(self, case: Case, entries: Mapping[str, Mapping[str, Any]]) -> bool:
        """Tell whether a segmentation is what this batch would make again."""
        entry = entries[case.case_id]
        made = [entry["segmentation"], *[probabilities_of(case.case_id)] * self.with_probabilities]
        if (
            None in made
            or entry.get("model") != self.about["sha256"]
            or entry.get("settings") != self.settings
            or entry.get("image") != place_of(case)
            or not all((self.out / name).is_file() for name in made)
            or sha256(self.out / made[0]) != entry["sha256"]
        ):
            return False
        stamp = stamp_of(case)
        return stamp != "" and stamp == entry.get("stamp")


def names_of(case: Case, output: Output) -> set[str]:
    """Return all names that a case may leave files under."""
    return {*output.names(case), probabilities_of(case.case_id)}


def _attempted(case: Case, job: Callable[[], _Step], before: _Step) -> _Step:
    """Do a step; return its result, or why there is none, with the seconds spent so far."""
    began = time.perf_counter()
    try:
        step = job()
    except LaminaError as problem:
        step = _Step(None, error=str(problem))
    except (MemoryError, RuntimeError) as problem:  # torch says the one as the other
        log.debug("%s", case.case_id, exc_info=True)
        reason = first_line(problem)
        step = _Step(None, error=f"{case.images[0]}: cannot be segmented on this machine: {reason}")
    return replace(step, seconds=before.seconds + time.perf_counter() - began)


def _within(tell: _Tell, done: int, what: str, windows: int, in_all: int) -> None:
    tell(done + windows / in_all, what)


def own_folder(out: Path, case: Case) -> Path:
    """Return the folder that a case has to itself while others are segmented."""
    return out / f".part-{case.case_id}"
