"""What was measured, laid beside what is printed: one cell for each row and column."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from lamina.evaluation.statistics.intervals import mean_interval
from lamina.evaluation.statistics.paired import holm, signed_rank
from lamina.study.schema import SCALES, Column, Study
from lamina.study.scored import Scored, by_case, by_patient, differences, patients_of

MARKS = ((0.01, "**"), (0.05, "*"))
"""p-value, corrected by Holm, below which a difference from the reference row gets a mark."""

_NO_CASE = "no case has it"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure: as printed, as measured here, in the unit of its column."""

    published: float | None = None
    measured: float | None = None
    low: float | None = None
    """End of the interval that covers the true mean in 95 of 100 studies..."""
    high: float | None = None
    """...where there is one."""
    patients: int = 0
    spread: float | None = None
    """Standard deviation of the means of the seeds, where there are two or more."""
    mark: str = ""
    """Whether it differs significantly from the reference row's: see :data:`MARKS`."""
    why: str = ""
    """Why nothing was measured."""

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        if self.measured is None or self.published is None:
            return None
        return self.measured - self.published


@dataclass(frozen=True, kw_only=True)
class FilledRow:
    """One row, or one case of a table of cases."""

    key: str
    title: str
    cells: tuple[Cell, ...]
    trainings: int = 0
    """Whose scores are in it."""
    why: str = ""
    """Why it was not trained, or failed."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A study with all that was measured of it."""

    study: Study
    rows: tuple[FilledRow, ...]
    remarks: tuple[str, ...] = field(default=())
    """What must be known of these measurements."""

    def notes(self) -> Iterator[str]:
        """Yield why what is measured is not what is printed, most general first."""
        yield from self.remarks
        yield from self.study.notes
        if absent := [c.title for i, c in enumerate(self.study.columns) if self._is_absent(i)]:
            yield f"These scans have nothing to measure it on: {', '.join(absent)}."
        yield from (
            f"{column.title}: {column.note}" for column in self.study.columns if column.note
        )
        yield from (f"{row.title}: {row.why}" for row in self.rows if row.why)
        shown = {row.key: row.title for row in self.rows}
        about = self.study.rows.items()
        yield from (f"{shown[key]}: {row.note}" for key, row in about if row.note and key in shown)
        yield from (f"The paper contradicts itself: {told}" for told in self.study.contradictions)

    def _is_absent(self, place: int) -> bool:
        """Tell whether a column was to be measured and could not be in any row."""
        cells = [row.cells[place] for row in self.rows]
        return any(cell.why for cell in cells) and not any(cell.patients for cell in cells)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        rows = []
        for row in self.rows:
            cells = [asdict(cell) | {"difference": cell.difference} for cell in row.cells]
            rows.append(asdict(row) | {"cells": cells})
        return {
            "study": self.study.name,
            "title": self.study.title,
            "source": self.study.source,
            "columns": [asdict(column) for column in self.study.columns],
            "rows": rows,
            "notes": list(self.notes()),
        }


def fill(
    study: Study,
    scored: Mapping[str, Sequence[Scored]],
    counted: Mapping[str, Mapping[str, float]],
    whys: Mapping[str, str],
    remarks: Sequence[str] = (),
) -> Filled:
    """Fill a study.

    Args:
        study: The study.
        scored: Row -> scores of its trainings.
        counted: Row -> ``parameters`` and ``macs``.
        whys: Row -> why it has no scores, where it could have.
        remarks: What must be known of the measurements.
    """
    make = _rows_of_cases if study.cases else _rows
    return Filled(
        study=study, rows=tuple(make(study, scored, counted, whys)), remarks=tuple(remarks)
    )


def _rows(
    study: Study,
    scored: Mapping[str, Sequence[Scored]],
    counted: Mapping[str, Mapping[str, float]],
    whys: Mapping[str, str],
) -> Iterator[FilledRow]:
    columns = [_column(study, column, scored, counted) for column in study.columns]
    for key, row in study.rows.items():
        yield FilledRow(
            key=key,
            title=row.title or key,
            cells=tuple(column[key] for column in columns),
            trainings=len(scored.get(key, ())),
            why=row.missing or whys.get(key, ""),
        )


def _column(
    study: Study,
    column: Column,
    scored: Mapping[str, Sequence[Scored]],
    counted: Mapping[str, Mapping[str, float]],
) -> dict[str, Cell]:
    place = study.columns.index(column)
    marks = {} if column.change else _marks(study, column, scored)
    cells = {}
    for key, row in study.rows.items():
        published = row.published[place] if row.published else None
        found: dict[str, Any]
        if column.is_scored:
            trainings = scored.get(key, ())
            if column.change:
                values = differences(study, column, trainings, scored.get(row.base, ()))
            else:
                values = by_patient(column, trainings)
            found = _measured(column, values, trainings) | {"mark": marks.get(key, "")}
            if trainings and not values and (row.base or not column.change):
                found["why"] = _NO_CASE
        else:
            found = _counted(column, counted.get(key, {}))
        cells[key] = Cell(published=published, **found)
    return cells


def _measured(
    column: Column, values: Mapping[str, float], trainings: Sequence[Scored]
) -> dict[str, Any]:
    if not values:
        return {}
    scale = SCALES[column.unit]
    interval = mean_interval(scale * np.array([*values.values()]))
    ends = {} if interval.missing else {"low": interval.low, "high": interval.high}
    by_seed: dict[int, list[float]] = {}
    for training in trainings:
        by_seed.setdefault(training.seed, []).extend(patients_of(column, training).values())
    means = [scale * fmean(found) for found in by_seed.values() if found]
    spread = stdev(means) if len(means) > 1 and not column.change else None
    return {"measured": interval.mean, "patients": interval.n, "spread": spread, **ends}


def _counted(column: Column, counted: Mapping[str, float]) -> dict[str, Any]:
    if column.metric not in counted:
        return {}
    return {"measured": SCALES[column.unit] * counted[column.metric]}


def _marks(study: Study, column: Column, scored: Mapping[str, Sequence[Scored]]) -> dict[str, str]:
    """Test each row against the reference row on the patients that both have."""
    if study.reference not in scored or not column.is_scored:
        return {}
    ours = scored[study.reference]
    against = {
        key: np.array([*differences(study, column, ours, theirs).values()])
        for key, theirs in scored.items()
        if key != study.reference
    }
    tested = {key: found for key, found in against.items() if len(found)}
    corrected = holm([signed_rank(found).p for found in tested.values()])
    return {
        key: next((mark for limit, mark in MARKS if p < limit), "")
        for key, p in zip(tested, corrected, strict=True)
    }


def _rows_of_cases(
    study: Study,
    scored: Mapping[str, Sequence[Scored]],
    counted: Mapping[str, Mapping[str, float]],
    whys: Mapping[str, str],
) -> Iterator[FilledRow]:
    """Yield the cases that are printed, then those that were scored beside them."""
    ((key, row),) = study.rows.items()
    trainings = scored.get(key, ())
    found = [by_case(column, trainings) for column in study.columns]
    names = [*study.cases, *sorted({case for values in found for case in values} - {*study.cases})]
    for name in names:
        printed = study.cases.get(name) or (None,) * len(study.columns)
        cells = []
        for column, values, published in zip(study.columns, found, printed, strict=True):
            value = values.get(name)
            measured = None if value is None else SCALES[column.unit] * value
            cells.append(Cell(published=published, measured=measured, patients=int(name in values)))
        yield FilledRow(key=name, title=name, cells=tuple(cells), trainings=len(trainings))
    mean = replace(study, cases={}, rows={key: replace(row, title="Mean of all")})
    yield from _rows(mean, scored, counted, whys)
