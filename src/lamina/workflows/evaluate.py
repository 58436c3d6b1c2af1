"""Evaluate: compare predicted with reference label maps, file by file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lamina.errors import DatasetError, GeometryError, LaminaError
from lamina.evaluation.metrics import METRICS, Unit
from lamina.evaluation.protocols import PROTOCOLS, find_metric
from lamina.evaluation.scores import Scores, score_case
from lamina.evaluation.summary import Score
from lamina.files import check_folder, write_json
from lamina.folders.evaluation import CASES, fingerprint, recorded_patients
from lamina.folders.pairs import folder_of, paired
from lamina.folders.prediction import read_record
from lamina.folders.probabilities import (
    find_probabilities,
    read_probabilities,
)
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows import Progress, no_progress


def evaluate(
    predictions: str | Path,
    references: str | Path | None = None,
    *,
    out: str | Path | None = None,
    labels: LabelSet | None = None,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    probabilities: str | Path | None = None,
    progress: Progress = no_progress,
) -> Scores:
    """Score label maps against their references.

    A run's own scans, segmented with ``--split``, are scored against the labels they were prepared
    with. Other files are paired by case id, which is the file's name without its suffix; two single
    files are a pair whatever they are called. A case that cannot be scored is listed with its
    reason in ``failures``, and the others go on. Pictures are measured in pixels, scans in mm: all
    of one set in the unit of its first.

    Args:
        predictions: A folder of label maps, or one of them.
        references: A folder of label maps, or one of them; not needed for a run's own scans, whose
            labels ``prediction.json`` names.
        out: Folder to leave ``scores.csv`` and ``scores.json`` in, and ``cases.json``, by which
            ``compare`` knows patients and references.
        labels: What the values stand for; by default what ``prediction.json`` beside the
            predictions says, else the references' ``dataset.json``, else every value found in them.
        metrics: Registered names; all of them by default, those that need probabilities if there
            are any.
        protocol: A paper's way to measure in place of ours, to compare with its tables alone:
            ``"transunet"``, ``"mpunet"`` or ``"lgmsnet"``.
        probabilities: Folder of ``CASE_probabilities.npy`` or ``.nii.gz``, one map per class with
            the background first, for metrics of calibration; by default that of the predictions.
        progress: Told of each case when it is done.

    Raises:
        DatasetError: A folder is missing or holds one case twice, or nothing can be paired.
        FileError, LabelError: The description of the labels is damaged, or ``out`` is a file.
        UnknownNameError: A metric or the protocol is not registered.
        ConfigError: The protocol does not measure what was asked for.
    """
    predictions, references = Path(predictions), Path(references) if references else None
    if out:
        check_folder(out := Path(out))
    for name in metrics or ():
        find_metric(name, protocol)
    pairs, expected, labels = paired(predictions, references, labels)
    folder = Path(probabilities) if probabilities else folder_of(predictions)
    names = tuple(metrics or _all_metrics(protocol, folder, pairs, probabilities is not None))
    uncertain = any(find_metric(name, protocol).needs_probability for name in names)
    rows: list[Score] = []
    unit: Unit | None = None
    failures = _unsegmented(predictions)
    patients, scored = recorded_patients(predictions), {}
    for done, (case, read) in enumerate(pairs.items(), start=1):
        try:
            prediction, reference = read()
            _check_unit(prediction, reference, unit)
            unit = reference.unit
            maps = read_probabilities(folder, case, labels, prediction) if uncertain else None
            rows += score_case(
                case,
                prediction.array[0],
                reference.array[0],
                labels,
                reference.spacing,
                names,
                unit,
                voxel_volume=reference.voxel_volume,
                protocol=protocol,
                probabilities=maps,
            )
            digest = fingerprint(reference)
            scored[case] = {"patient": patients.get(case), "reference_sha256": digest}
        except LaminaError as error:
            failures[case] = str(error)
        progress(done, len(pairs), case)
    scores = Scores(
        labels=labels,
        metrics=names,
        rows=tuple(rows),
        failures=failures,
        not_predicted=tuple(c for c in expected if c not in pairs and c not in failures),
        unit=unit or "mm",
        protocol=protocol,
        predictions=str(predictions.resolve()),
        references=str(references.resolve()) if references else "",
    )
    if out:
        scores.write(out)
        write_json(out / CASES, scored)
    return scores


def _all_metrics(
    protocol: str | None, folder: Path, cases: Iterable[str], asked: bool
) -> Sequence[str]:
    """Return what is measured unless asked otherwise; calibration where there is what it needs."""
    if protocol:
        return [metric.name for metric in PROTOCOLS.get(protocol).metrics]
    uncertain = any(find_probabilities(folder, case) for case in cases)
    if asked and not uncertain:
        raise DatasetError(
            f"{folder}: holds no probabilities of any case.",
            remedy="Name them CASE_probabilities.npy or .nii.gz.",
        )
    return [name for name in METRICS if uncertain or not METRICS.get(name).needs_probability]


def _check_unit(prediction: Volume, reference: Volume, unit: Unit | None) -> None:
    """Refuse a pair that is measured otherwise than the cases before, if there were any."""
    if {prediction.unit, reference.unit} != {unit or reference.unit}:
        raise GeometryError(
            f"{prediction.source}: measured in {prediction.unit}, its reference in {reference.unit}"
            + (f", the cases before in {unit}." if unit else "."),
            remedy="Score scans and pictures apart, and each against references of its own kind.",
        )


def _unsegmented(predictions: Path) -> dict[str, str]:
    """Return the scans that were tried and failed, which must not vanish from the scores."""
    cases = read_record(predictions)["cases"]
    return {c["case_id"]: c["error"] for c in cases if c["segmentation"] is None}
