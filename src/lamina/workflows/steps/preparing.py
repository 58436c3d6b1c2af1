"""Preparing: every case of a dataset is looked at, and then stored as training reads it."""

from functools import partial
from math import prod
from pathlib import Path

from lamina.data.cache import prepare_case
from lamina.data.cohort import Cohort
from lamina.data.fingerprint import Fingerprint, Survey, survey
from lamina.data.plan import Plan
from lamina.data.workers import workers_for
from lamina.errors import FileError, LaminaError
from lamina.files import remove_parts
from lamina.workflows import Progress
from lamina.workflows.steps.fan_out import spread


def readers_for(cohort: Cohort) -> int:
    """Return how many processes can look at scans at once."""
    size = max(sum(p.stat().st_size for p in c.image_files if p.is_file()) for c in cohort.cases)
    return workers_for(30 * size, len(cohort.cases))


def survey_all(
    cohort: Cohort,
    resample_oblique: bool,
    workers: int | None,
    cluster: str | None,
    progress: Progress,
) -> tuple[dict[str, Survey], dict[str, str]]:
    """Look at every case; return what was found and, by case id, why others cannot be used."""
    found: dict[str, Survey] = {}
    excluded: dict[str, str] = {}
    count = readers_for(cohort) if workers is None else workers
    task = partial(
        survey,
        channels=cohort.channels,
        labels=cohort.labels,
        resample_oblique=resample_oblique,
    )
    for done, (case, outcome) in enumerate(spread(task, cohort.cases, count, cluster), start=1):
        if isinstance(outcome, LaminaError):
            excluded[case.case_id] = str(outcome)
        else:
            found[case.case_id] = outcome
        progress(done, len(cohort.cases), "Reading")
    _agree_on_kind(found, excluded)
    return found, excluded


def store(
    cohort: Cohort,
    fingerprint: Fingerprint,
    plan: Plan,
    cache: Path,
    workers: int | None,
    progress: Progress,
    cluster: str | None = None,
) -> dict[str, str]:
    """Store every case as training reads it, unless that has been done already.

    Returns:
        Case id -> why the case does not fit the plan.

    Raises:
        FileError: The disk is full, or ``cache`` cannot be written.
    """
    remove_parts(cache)
    largest = max(prod(facts.shape) for facts in fingerprint.cases) * len(cohort.channels)
    count = workers_for(20 * largest, len(cohort.cases)) if workers is None else workers
    excluded: dict[str, str] = {}
    # A scan that was not to be resampled did not get here.
    task = partial(prepare_case, plan=plan, cache=cache, resample_oblique=True)
    for done, (case, outcome) in enumerate(spread(task, cohort.cases, count, cluster), start=1):
        if isinstance(outcome, FileError):  # the scan was read a moment ago: this is the disk
            raise outcome
        if isinstance(outcome, LaminaError):
            excluded[case.case_id] = str(outcome)
        progress(done, len(cohort.cases), "Preparing")
    return excluded


def _agree_on_kind(found: dict[str, Survey], excluded: dict[str, str]) -> None:
    """Leave out images among volumes, or pixels among millimetres: one network takes one kind."""
    kinds = {id_: (survey.spatial_dims, survey.facts.unit) for id_, survey in found.items()}
    usual = max(sorted({*kinds.values()}), key=[*kinds.values()].count, default=(3, "mm"))
    for case_id, kind in kinds.items():
        if kind != usual:
            excluded[case_id] = (
                f"{kind[0]} spatial axes where most cases have {usual[0]}."
                if kind[0] != usual[0]
                else f"measured in {kind[1]} where most cases are in {usual[1]}."
            )
            del found[case_id]
