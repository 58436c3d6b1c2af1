"""Evaluate: compare predicted with reference label maps, file by file."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import ConfigError, DatasetError, GeometryError, LaminaError
from lamina.evaluation.metrics import METRICS, Unit
from lamina.evaluation.protocols import PROTOCOLS, find_metric
from lamina.evaluation.scores import Scores, score_case
from lamina.evaluation.summary import Score
from lamina.files import check_folder
from lamina.folders.evaluation import (
    fingerprint,
    recorded_files,
    recorded_patients,
    write_evaluation,
)
from lamina.folders.pairs import ReadPair, folder_of, paired
from lamina.folders.prediction import read_record
from lamina.folders.probabilities import (
    find_probabilities,
    read_probabilities,
)
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows import Progress, no_progress

_log = logging.getLogger(__name__)


def evaluate(
    predictions: str | Path,
    references: str | Path | None = None,
    *,
    out: str | Path | None = None,
    labels: LabelSet | None = None,
    metrics: str | Sequence[str] | None = None,
    protocol: str | None = None,
    probabilities: str | Path | None = None,
    progress: Progress = no_progress,
) -> Scores:
    """Score label maps against their references.

    A run's own scans, segmented with ``--split``, are scored against the labels they were prepared
    with. Other files are paired by case id, which is the file's name without its suffix; two single
    files are a pair whatever they are called. A case that cannot be scored is listed with its
    reason in ``failures``, and the others go on. Pictures are measured in pixels, scans in mm: all
    of one set in the unit of the first that is scored.

    Args:
        predictions: A folder of label maps, or one of them.
        references: A folder of label maps, or one of them; not needed for a run's own scans, whose
            labels ``prediction.json`` names.
        out: Folder to leave ``scores.csv`` and ``scores.json`` in, and ``cases.json``, by which
            ``compare`` knows patients and references, and ``report`` the segmentations.
        labels: What the values stand for; by default what ``prediction.json`` beside the
            predictions says, else the references' ``dataset.json``, else every value found in them.
        metrics: Registered names; all of them by default, those that need probabilities if every
            case has some.
        protocol: A paper's way to measure in place of ours, to compare with its tables alone:
            ``"transunet"``, ``"mpunet"`` or ``"lgmsnet"``.
        probabilities: Folder of ``CASE_probabilities.npy`` or ``.nii.gz``, one map per class with
            the background first, for metrics of calibration, and a case without fails; by default
            that of the predictions.
        progress: Told of each case when it is done.

    Raises:
        DatasetError: A folder is missing or holds one case twice, or nothing can be paired.
        FileError, LabelError: The description of the labels is damaged, or ``out`` is a file.
        UnknownNameError: A metric or the protocol is not registered.
        ConfigError: The protocol does not measure what was asked for, or ``metrics`` is empty.
    """
    predictions, references = Path(predictions), Path(references) if references else None
    if out:
        check_folder(out := Path(out))
    wanted = _named(metrics, protocol)
    pairs, expected, labels = paired(predictions, references, labels)
    folder = Path(probabilities) if probabilities else folder_of(predictions)
    names = wanted or _all_metrics(protocol, folder, pairs, probabilities is not None)
    uncertain = any(find_metric(name, protocol).needs_probability for name in names)
    patients, files = recorded_patients(predictions), recorded_files(predictions)
    scoring = _Scoring(labels, names, protocol, folder if uncertain else None)
    scored, unscored = _score_all(scoring, pairs, progress)
    failures = _unsegmented(predictions, {*expected} - pairs.keys()) | unscored
    scores = Scores(
        labels=labels,
        metrics=names,
        rows=tuple(row for each in scored.values() for row in each.rows),
        failures=failures,
        not_predicted=tuple(c for c in expected if c not in pairs and c not in failures),
        unit=next((each.unit for each in scored.values()), "mm"),
        protocol=protocol,
        predictions=str(predictions.resolve()),
        references=str(references.resolve()) if references else "",
        probabilities=str(folder.resolve()) if uncertain else "",
    )
    if out:
        compared = {
            case: {"patient": patients.get(case), **each.hashes, "file_sha256": files.get(case)}
            for case, each in scored.items()
        }
        write_evaluation(out, scores, compared)
    return scores


@dataclass(frozen=True)
class _Scored:
    """What was found of one case."""

    rows: Sequence[Score]
    unit: Unit
    hashes: Mapping[str, str]
    """Of what was compared with what."""


@dataclass(frozen=True)
class _Scoring:
    """How every case is scored."""

    labels: LabelSet
    metrics: tuple[str, ...]
    protocol: str | None
    probabilities: Path | None
    """Folder of those of each case; ``None`` where no metric needs them."""

    def score(self, case: str, read: ReadPair, unit: Unit | None) -> _Scored:
        """Score one case.

        Args:
            case: Its name.
            read: Reads its segmentation and its reference.
            unit: That of the cases before, if there were any.

        Raises:
            LaminaError: It cannot be read, or not be scored.
        """
        prediction, reference = read()
        _check_unit(prediction, reference, unit)
        maps = None
        if self.probabilities:
            maps = read_probabilities(self.probabilities, case, self.labels, prediction)
        rows = score_case(
            case,
            prediction.array[0],
            reference.array[0],
            self.labels,
            reference.spacing,
            self.metrics,
            reference.unit,
            voxel_volume=reference.voxel_volume,
            protocol=self.protocol,
            probabilities=maps,
        )
        hashes = {
            "reference_sha256": fingerprint(reference),
            "segmentation_sha256": fingerprint(prediction),
        }
        return _Scored(rows, reference.unit, hashes)


def _score_all(
    scoring: _Scoring, pairs: Mapping[str, ReadPair], progress: Progress
) -> tuple[dict[str, _Scored], dict[str, str]]:
    """Return the cases that can be scored, and why others cannot."""
    scored: dict[str, _Scored] = {}
    failures: dict[str, str] = {}
    unit: Unit | None = None
    for done, (case, read) in enumerate(pairs.items(), start=1):
        try:
            scored[case] = scoring.score(case, read, unit)
            unit = scored[case].unit
        except LaminaError as error:
            failures[case] = str(error)
        progress(done, len(pairs), case)
    return scored, failures


def _named(metrics: str | Sequence[str] | None, protocol: str | None) -> tuple[str, ...]:
    """Return the metrics that were asked for, each once; none where nothing was said."""
    names = (metrics,) if isinstance(metrics, str) else metrics
    if names is not None and not names:
        raise ConfigError("metrics: is empty.", remedy="Name some, or leave it out for all.")
    for name in names or ():
        find_metric(name, protocol)
    return tuple(dict.fromkeys(names or ()))


def _all_metrics(
    protocol: str | None, folder: Path, cases: Collection[str], asked: bool
) -> tuple[str, ...]:
    """Return what is measured unless asked otherwise; calibration where there is what it needs."""
    if protocol:
        return tuple(metric.name for metric in PROTOCOLS.get(protocol).metrics)
    known = sum(find_probabilities(folder, case) is not None for case in cases)
    if asked and not known:
        raise DatasetError(
            f"{folder}: holds no probabilities of any case.",
            remedy="Name them CASE_probabilities.npy or .nii.gz.",
        )
    uncertain = known > 0 and (asked or known == len(cases))
    if known and not uncertain:
        _log.warning(
            "%s: holds probabilities of %d of %d cases; ece and brier are not measured.",
            *(folder, known, len(cases)),
        )
    return tuple(name for name in METRICS if uncertain or not METRICS.get(name).needs_probability)


def _check_unit(prediction: Volume, reference: Volume, unit: Unit | None) -> None:
    """Refuse a pair that is measured otherwise than the cases before, if there were any."""
    if {prediction.unit, reference.unit} != {unit or reference.unit}:
        raise GeometryError(
            f"{prediction.source}: measured in {prediction.unit}, its reference in {reference.unit}"
            + (f", the cases before in {unit}." if unit else "."),
            remedy="Score scans and pictures apart, and each against references of its own kind.",
        )


def _unsegmented(predictions: Path, lacking: Collection[str]) -> dict[str, str]:
    """Return which of the cases without a segmentation were tried and failed, and why."""
    tried = (c for c in read_record(predictions)["cases"] if c["segmentation"] is None)
    return {c["case_id"]: c["error"] for c in tried if c["case_id"] in lacking}
