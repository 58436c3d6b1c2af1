"""The files of a work folder, which ``prepare`` writes and ``train`` reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.config import resolve
from lamina.data.cohort import Cohort
from lamina.data.fingerprint import Fingerprint
from lamina.data.folds import Fold, read_fold, write_folds
from lamina.data.plan import Plan
from lamina.data.protocols import Assignment
from lamina.data.ranges import KEY, training_ranges
from lamina.data.share import share_of
from lamina.errors import DatasetError
from lamina.files import read_json, sha256, write_json


@dataclass(frozen=True)
class WorkFolder:
    """A prepared dataset on disk."""

    root: Path

    @property
    def cohort_file(self) -> Path:
        """The cases that can be used."""
        return self.root / "dataset.json"

    @property
    def fingerprint_file(self) -> Path:
        """What the scans are."""
        return self.root / "fingerprint.json"

    @property
    def plan_file(self) -> Path:
        """What was decided, and why."""
        return self.root / "plan.json"

    @property
    def splits_file(self) -> Path:
        """Folds by patient."""
        return self.root / "splits.json"

    @property
    def excluded_file(self) -> Path:
        """Cases that cannot be used, each with its reason."""
        return self.root / "excluded.json"

    @property
    def protocol_file(self) -> Path:
        """Which paper's use of the dataset was followed, and where it could not be; or null."""
        return self.root / "protocol.json"

    @property
    def cache(self) -> Path:
        """One folder of arrays per case."""
        return self.root / "cases"

    @property
    def changing_file(self) -> Path:
        """There while cases are prepared for another plan: some fit the old one, others the new."""
        return self.root / ".changing"

    def begin(self, fingerprint: Fingerprint) -> None:
        """Write what the scans are; until :meth:`write`, the folder is not prepared.

        Raises:
            FileError: The folder cannot be written.
        """
        write_json(self.fingerprint_file, fingerprint.as_dict())
        self.splits_file.unlink(missing_ok=True)

    def write(
        self,
        cohort: Cohort,
        plan: Plan,
        excluded: Mapping[str, str],
        assigned: Assignment | None,
        folds: Sequence[Fold],
    ) -> None:
        """Write all that was decided, when every case is prepared.

        Args:
            cohort: The cases that can be used, with those that are kept for the end.
            plan: How to train on them.
            excluded: Other cases -> why they cannot be used.
            assigned: The paper's use of the dataset that was followed.
            folds: By patient.

        Raises:
            FileError: The folder cannot be written.
        """
        write_json(self.cohort_file, cohort.as_dict())
        write_json(self.plan_file, plan.as_dict())
        write_json(self.excluded_file, dict(excluded))
        write_json(self.protocol_file, assigned.as_dict() if assigned else None)
        write_folds(self.splits_file, folds)  # whose presence says that all the rest is there
        self.changing_file.unlink(missing_ok=True)

    def cohort(self) -> Cohort:
        """Read the cases."""
        self._check()
        return Cohort.from_dict(read_json(self.cohort_file))

    def training_cohort(self) -> Cohort:
        """Read the cases to train and validate on: those that are prepared."""
        whole = self.cohort()
        prepared = (c for c in whole.cases if (self.cache / c.case_id / "case.json").is_file())
        return replace(whole, cases=tuple(prepared))

    def plan(self) -> Plan:
        """Read the plan."""
        self._check()
        return Plan.from_dict(read_json(self.plan_file))

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of the files that say what is trained on, and how, by name."""
        files = (self.plan_file, self.splits_file, self.cohort_file)
        return {file.name: sha256(file) for file in files}

    def ranges(self, plan: Plan, cases: Iterable[str]) -> dict[str, Any]:
        """Return what the cases to train on are like, as a record of training keeps it.

        Nothing, where the folder does not know what its cases are like.
        """
        if not self.fingerprint_file.is_file():
            return {}
        found = resolve(Fingerprint, read_json(self.fingerprint_file))
        ranges = training_ranges(found, plan, cases)
        return {KEY: ranges.as_dict()} if ranges else {}

    def fold_numbers(self, asked: Sequence[int] | None) -> Sequence[int]:
        """Return the folds that are asked for, all by default, sure that each is there.

        Raises:
            DatasetError: As :meth:`fold`.
        """
        self.fold(0)
        numbers = range(len(read_json(self.splits_file))) if asked is None else asked
        for number in numbers:
            self.fold(number)
        return numbers

    def fold(self, number: int, share: float = 1.0) -> Fold:
        """Read one fold.

        Args:
            number: From 0.
            share: Of its training patients, as :func:`~lamina.data.share.share_of` takes it.

        Raises:
            DatasetError: There is none, or the cases are not all prepared for one plan.
        """
        self._check()
        if self.changing_file.is_file():
            raise DatasetError(
                f"{self.root}: its cases are being prepared for another plan, or that broke off.",
                remedy=f"Wait for it, or run lamina plan {self.root} {self._as_planned()}.",
            )
        whole = read_fold(self.splits_file, number)
        return whole if share == 1 else share_of(whole, self.cohort().cases, share)

    def _as_planned(self) -> str:
        """Return the option of ``lamina plan`` that keeps what was asked for."""
        plan = self.plan()
        if plan.was_asked("target_spacing") and not plan.was_asked("network"):
            return f"--spacing {','.join(f'{step:g}' for step in plan.target_spacing)}"
        return f"--model {plan.network if plan.was_asked('network') else 'auto'}"

    def _check(self) -> None:
        if self.splits_file.is_file():
            return
        begun = self.fingerprint_file.is_file() or not any(self.root.glob("*"))
        raise DatasetError(
            f"{self.root}: not a prepared dataset.",
            remedy=f"Run lamina prepare DATASET --out {self.root} first."
            if begun
            else f"If it is a dataset, run lamina prepare {self.root} --out WORK and give WORK.",
        )
