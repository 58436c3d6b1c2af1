"""Compare: methods that were scored on the same cases, with intervals, tests and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamina.errors import ConfigError, DatasetError, UnknownNameError
from lamina.evaluation.metrics import METRICS, Metric, Unit
from lamina.evaluation.statistics.comparison import Comparison, Subject, compare_methods
from lamina.evaluation.statistics.pairing import ByCase, Paired, pair
from lamina.files import check_folder, write_json, write_text
from lamina.folders.evaluation import Evaluation, patients_of, read_evaluation
from lamina.workflows.steps.comparability import check_comparable, remarks

DEFAULT_METRIC = "dice"
_UNITS: tuple[Unit, ...] = ("mm", "px")


@dataclass(frozen=True)
class _Measure:
    """One metric over all structures, or of one."""

    metric: Metric
    structure: str | None

    @property
    def title(self) -> str:
        """What the tables call it."""
        where = f" of {self.structure}" if self.structure else ", mean over the structures"
        return self.metric.title + where

    def structures(self, found: Evaluation) -> list[str]:
        """Return what the mean is over."""
        return [self.structure] if self.structure else list(found.scores.labels.values)

    def of(self, found: Evaluation) -> ByCase:
        """Return the values of the structures that count."""
        names = self.structures(found)
        values = found.values[self.metric.name]
        return {case: {name: row[name] for name in names} for case, row in values.items()}


def compare(
    methods: Mapping[str, str | Path | Sequence[str | Path]],
    out: str | Path | None = None,
    *,
    metric: str | None = None,
    structure: str | None = None,
) -> Comparison:
    """Compare methods by the scores that ``evaluate`` or a cross-validation left of each.

    Patients are the unit: scans of one patient, and the trainings of one method, are averaged
    first. Only cases that are scored for every method count; ``subject.remarks`` says what was left
    out.

    Args:
        methods: Name -> places of the scores, one for each training of the method; a place is a
            ``scores.json``, its folder, or the folder of a cross-validation.
        out: Folder to leave ``compare.json``, tables in Markdown and LaTeX, and pictures in.
        metric: Name of one metric that has a better direction; Dice by default, or the first
            there is.
        structure: One structure or region; by default the mean over the structures of each case.

    Raises:
        ConfigError: There are fewer than two methods, scores are given twice, or the metric is a
            signed error.
        DatasetError: There are no scores, or they were measured as a paper did, or are not of the
            same cases, references, labels and rules.
        FileError: Scores are damaged, or ``out`` is a file or cannot be written.
        UnknownNameError: There is no such metric, structure or region.
    """
    places = {
        name: [Path(place) for place in ([given] if isinstance(given, str | Path) else given)]
        for name, given in methods.items()
    }
    _check_number(places)
    if out:
        check_folder(Path(out))
    evaluations = [read_evaluation(path) for paths in places.values() for path in paths]
    _check_distinct(evaluations)
    _check_ours(evaluations)
    measure = _measure(evaluations[0], metric, structure)
    check_comparable(evaluations, measure.metric.name)
    known = dict(chain.from_iterable(e.patients.items() for e in evaluations))
    patients = patients_of(evaluations[0].cases, known)
    found = pair([measure.of(e) for e in evaluations], patients, measure.metric.best)
    structures = measure.structures(evaluations[0])
    told = tuple(remarks(places, evaluations, found, structures, measure.metric.best))
    if not found.patients:
        where = evaluations[0].path
        raise DatasetError(f"{where}: no case is left to compare. {' '.join(told)}")
    subject = Subject(
        measure=measure.title,
        unit=measure.metric.unit,
        higher_is_better=bool(measure.metric.higher_is_better),
        patients=found.patients,
        num_cases=len(found.cases),
        remarks=told,
    )
    comparison = compare_methods(subject, _by_method(places, found))
    if out:
        _write(Path(out), places, comparison)
    return comparison


def _check_number(methods: Mapping[str, Sequence[Path]]) -> None:
    if len(methods) < 2:
        raise ConfigError(
            f"compare: at least two methods are needed, {len(methods)} given.",
            remedy="Give two folders of scores or more; the seeds of a method are one group.",
        )


def _check_distinct(evaluations: Sequence[Evaluation]) -> None:
    files = [found.path.resolve() for found in evaluations]
    for file in files:
        if files.count(file) > 1:
            raise ConfigError(f"{file}: given twice.", remedy="Give each set of scores once.")


def _check_ours(evaluations: Sequence[Evaluation]) -> None:
    for found in evaluations:
        if found.scores.protocol:
            raise DatasetError(
                f"{found.path}: was measured as a paper did, with protocol "
                f"{found.scores.protocol}.",
                remedy="Score the segmentations again without a protocol.",
            )


def _measure(found: Evaluation, name: str | None, structure: str | None) -> _Measure:
    """Return what to compare, by the names that the scores have for it."""
    registered = [METRICS.get(metric) for metric in METRICS]
    known = {m.measured_in(unit).name: m.measured_in(unit) for m in registered for unit in _UNITS}
    there = [metric for metric in found.metrics if metric in known]
    directed = [metric for metric in there if known[metric].higher_is_better is not None]
    if name is None:
        default = next(iter(directed or there), DEFAULT_METRIC)
        name = DEFAULT_METRIC if DEFAULT_METRIC in there else default
    elif name in METRICS:
        name = METRICS.get(name).measured_in(found.scores.unit).name
    if name not in there:
        raise UnknownNameError(
            f"metric {name}: is not in {found.path}.",
            remedy=f"It has {', '.join(directed) or 'none that has a better direction'}.",
        )
    if name not in directed:  # by size, a missed structure beats one found too large
        raise ConfigError(
            f"metric {name}: is a signed error, which has no better direction to compare by.",
            remedy="Compare by absolute_volume_error_ml or relative_volume_error.",
        )
    structures = [*found.scores.labels.values, *found.scores.labels.regions]
    if structure and structure not in structures:
        raise UnknownNameError(
            f"structure {structure}: is not in {found.path}.",
            remedy=f"It has {', '.join(structures)}.",
        )
    return _Measure(known[name], structure)


def _by_method(
    methods: Mapping[str, Sequence[Path]], found: Paired
) -> dict[str, NDArray[np.float64]]:
    """Return the rows ``(seeds, patients)`` of each method."""
    ends = np.cumsum([len(paths) for paths in methods.values()])
    return dict(zip(methods, np.split(found.values, ends[:-1]), strict=True))


def _write(out: Path, methods: Mapping[str, Sequence[Path]], found: Comparison) -> None:
    """Write figures, tables and pictures; all are made before the first is written."""
    from lamina.report.comparison import latex, markdown
    from lamina.report.comparison_pictures import save_pictures

    pictures = save_pictures(out, found)
    sources = {name: [str(path) for path in paths] for name, paths in methods.items()}
    write_json(out / "compare.json", found.as_dict() | {"scores": sources})
    write_text(out / "compare.md", markdown(found, pictures))
    write_text(out / "compare.tex", latex(found))
