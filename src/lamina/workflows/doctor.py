"""Doctor: examine a dataset, say what is wrong with it, and mend what leaves no doubt."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.doctor import SEVERITIES, Finding
from lamina.data.doctor.diagnosis import diagnose
from lamina.data.doctor.examine import examine, unreadable
from lamina.data.doctor.facts import Examination
from lamina.data.doctor.mend import Change, check_outside, check_room, mend, plan_mending
from lamina.data.doctor.suspicions import sided_pairs
from lamina.data.layouts import read_cohort
from lamina.data.workers import run_over
from lamina.errors import LaminaError, some
from lamina.io import is_scan, strip_suffix
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.preparing import readers_for

_TEST_FOLDER = "imagesTs"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What ``doctor`` found, and what it wrote."""

    dataset: Path
    cohort: Cohort
    num_tested: int
    """Scans in the test folder, which are compared with the others."""
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    """What a mended copy differs in, be it written or not."""
    mended: Path | None
    report: Path | None
    """The page to open."""
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by severity, the gravest first."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "dataset": str(self.dataset),
            "name": self.cohort.name,
            "num_cases": len(self.cohort.cases),
            "num_patients": len({case.group for case in self.cohort.cases}),
            "num_tested": self.num_tested,
            "counts": self.counts,
            "findings": [finding.as_dict() for finding in self.findings],
            "changes": [change.as_dict() for change in self.changes],
            "mended": str(self.mended) if self.mended else None,
            "report": str(self.report) if self.report else None,
            "seconds": self.seconds,
        }


def doctor(
    dataset: str | Path,
    *,
    layout: str | None = None,
    fix: str | Path | None = None,
    dry_run: bool = False,
    report: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Diagnosis:
    """Examine every scan of a dataset once and compare them all; nothing in it is changed.

    Args:
        dataset: Folder of labelled scans; images in an ``imagesTs/`` are compared with them.
        layout: Registered layout; found by itself if not given.
        fix: New folder for a mended copy.
        dry_run: Only say what the mended copy would change.
        report: Folder outside of it for a page with pictures, ``index.html``.
        workers: Processes; 0 for none; as many as memory and cores allow if not given.
        progress: Called after each case.

    Raises:
        DatasetError: The folder is not understood, or ``fix`` is not a new folder outside of it,
            or ``report`` lies in it, or no case remains to be copied.
        UnknownNameError: The layout is not registered.
        FileError: The copy or the report cannot be written.
    """
    start = perf_counter()
    dataset = Path(dataset)
    fix, report = (Path(place) if place else None for place in (fix, report))
    if fix:
        check_room(dataset, fix)
    if report:
        check_outside(dataset, report, "--report")
    cohort = read_cohort(dataset, layout, partial=True)
    tested = _test_cases(dataset.resolve(), cohort)
    count = readers_for(cohort) if workers is None else workers
    examinations = _examine(cohort, tested, count, progress)
    findings = diagnose(cohort, examinations, (*_unpaired(cohort), *_unlisted(cohort)))
    own = {"", *(case.case_id for case in cohort.cases)}
    changes = plan_mending([finding for finding in findings if finding.case in own])
    mended = None if dry_run else fix
    if mended:
        mend(cohort, changes, mended, count)
    result = Diagnosis(
        dataset=dataset,
        cohort=cohort,
        num_tested=len(tested),
        findings=findings,
        changes=tuple(changes),
        mended=mended,
        report=report / "index.html" if report else None,
        seconds=perf_counter() - start,
    )
    if report:
        from lamina.report.doctor import save_report

        files = {case.case_id: case for case in (*cohort.cases, *tested)}
        save_report(report / "index.html", cohort, files, findings, changes, progress=progress)
    return result


def _examine(
    cohort: Cohort, tested: tuple[Case, ...], workers: int, progress: Progress
) -> list[Examination]:
    values = cohort.labels.values
    sided = frozenset(values[name] for pair in sided_pairs(cohort.labels) for name in pair)
    held_out = frozenset(case.case_id for case in tested)
    task = partial(examine, labels=cohort.labels, sided=sided, held_out=held_out)
    cases = (*cohort.cases, *tested)
    found = []
    for done, (case, outcome) in enumerate(run_over(task, cases, workers), start=1):
        if isinstance(outcome, LaminaError):
            fault = unreadable(case, str(case.images[0]), outcome)
            held = case.case_id in held_out
            outcome = Examination(case=case, held_out=held, faults=(fault,))
        found.append(outcome)
        progress(done, len(cases), "Reading")
    return found


def _test_cases(dataset: Path, cohort: Cohort) -> tuple[Case, ...]:
    """Return the images of the test folder; their ids cannot be taken for those of the cohort."""
    folder = dataset / _TEST_FOLDER
    if not folder.is_dir():
        return ()
    first = cohort.cases[0]
    endings = [strip_suffix(path).removeprefix(first.case_id) for path in first.images]
    files: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if is_scan(path)):
        name = strip_suffix(path)
        ending = next((e for e in endings if e and name.endswith(e)), "")
        files.setdefault(name[: len(name) - len(ending)], []).append(path)
    return tuple(
        Case(case_id=f"{name} (test)", group=patient_of(name), images=tuple(paths))
        for name, paths in files.items()
    )


def _unpaired(cohort: Cohort) -> Iterator[Finding]:
    """Report the cases that were left out, one by one."""
    for reason, files in cohort.unpaired.items():
        yield Finding(
            severity="error",
            check="unpaired",
            case="",
            file=str(files[0]),
            message=f"{reason}.",
            remedy="Bring what is missing under the same name, or move away what is too much.",
        )


def _unlisted(cohort: Cohort) -> Iterator[Finding]:
    """Report scans that lie beside those of the cohort and belong to no case."""
    used = {path for case in cohort.cases for path in (*case.image_files, *case.label_files)}
    used.update(*cohort.unpaired.values())
    for folder in sorted({case.images[0].parent for case in cohort.cases}):
        if not folder.is_dir():
            continue
        stray = sorted(p.name for p in folder.iterdir() if is_scan(p) and p not in used)
        if stray:
            yield Finding(
                severity="note",
                check="unlisted",
                case="",
                file=str(folder),
                message=f"in no case: {some(stray)}.",
                remedy="List them in dataset.json, or move them away.",
            )
