"""Evaluate: compare predicted with reference label maps, file by file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lamina.data.case import Case
from lamina.data.layouts.msd import label_set
from lamina.errors import DatasetError, GeometryError, LabelError, LaminaError
from lamina.evaluation.metrics import METRICS, Unit
from lamina.evaluation.protocols import PROTOCOLS, find_metric
from lamina.evaluation.scores import Scores, score_case
from lamina.evaluation.summary import Score
from lamina.files import check_folder, read_json, write_json
from lamina.geometry import check_same_grid
from lamina.io import is_scan, read_labels, strip_suffix
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows import RECORD, Progress, no_progress
from lamina.workflows.probabilities import (
    find_probabilities,
    is_probabilities,
    read_probabilities,
)
from lamina.workflows.record import read_record
from lamina.workflows.scored import CASES, fingerprint, recorded_patients

ReadPair = Callable[[], tuple[Volume, Volume]]
"""Reads a prediction and its reference as class indices ``(1, *S)`` on one grid."""


def evaluate(
    predictions: str | Path,
    references: str | Path | None = None,
    out: str | Path | None = None,
    *,
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
    folder = Path(probabilities) if probabilities else _folder(predictions)
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


def paired(
    predictions: Path, references: Path | None, labels: LabelSet | None
) -> tuple[Mapping[str, ReadPair], Sequence[str], LabelSet]:
    """Return what reads each case, all cases that should be there, and what the values stand for.

    Args:
        predictions: As for :func:`evaluate`, like the others.
        references: Without them, those that the record beside the predictions names.
        labels: What the values stand for, if known.

    Raises:
        DatasetError, FileError, LabelError: As for :func:`evaluate`.
    """
    if references is None:
        return recorded(predictions, labels)
    return _given(predictions, references, labels)


def recorded(
    predictions: Path, labels: LabelSet | None
) -> tuple[Mapping[str, ReadPair], Sequence[str], LabelSet]:
    """Pair the segmentations of a run's own scans with the labels that the record names."""
    record = read_record(predictions)
    entries = {e["case_id"]: e for e in record["cases"] if e.get("case")}
    if not entries:
        raise DatasetError(
            f"{predictions}: no record says which labels these are to be compared with.",
            remedy="Name them: lamina evaluate -p SEGMENTATIONS -r LABELS.",
        )
    labels = labels or LabelSet.from_dict(record.get("labels", {}))

    def read(entry: Mapping[str, Any]) -> tuple[Volume, Volume]:
        case = Case.from_dict(entry["case"])
        found = case.sized(read_labels(predictions / entry["segmentation"]))
        return _encoded(found, labels), case.read_label(labels, found)

    done = {case_id: entry for case_id, entry in entries.items() if entry["segmentation"]}
    return {case_id: partial(read, entry) for case_id, entry in done.items()}, [*entries], labels


def _given(
    predictions: Path, references: Path, labels: LabelSet | None
) -> tuple[Mapping[str, ReadPair], Sequence[str], LabelSet]:
    """Pair files by their names."""
    predicted, expected = _pair(predictions, references)
    known = labels or declared_labels(predictions, references) or found_labels(expected)

    def read(path: Path, reference: Path | None) -> tuple[Volume, Volume]:
        if reference is None:
            remedy = "Add it, or remove the prediction."
            raise DatasetError(f"{path}: has no reference.", remedy=remedy)
        found, wanted = read_labels(path), read_labels(reference)
        check_same_grid(
            found.affine,
            found.spatial_shape,
            wanted.affine,
            wanted.spatial_shape,
            f"{found.source} and {wanted.source}",
        )
        return _encoded(found, known), _encoded(wanted, known)

    pairs = {case: partial(read, path, expected.get(case)) for case, path in predicted.items()}
    return pairs, [*expected], known


def _encoded(volume: Volume, labels: LabelSet) -> Volume:
    """Return a label map as class indices."""
    return replace(volume, array=labels.encode(volume.array, volume.source))


def _check_unit(prediction: Volume, reference: Volume, unit: Unit | None) -> None:
    """Refuse a pair that is measured otherwise than the cases before, if there were any."""
    if {prediction.unit, reference.unit} != {unit or reference.unit}:
        raise GeometryError(
            f"{prediction.source}: measured in {prediction.unit}, its reference in {reference.unit}"
            + (f", the cases before in {unit}." if unit else "."),
            remedy="Score scans and pictures apart, and each against references of its own kind.",
        )


def _pair(predictions: Path, references: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the predictions and the references that they answer for, each by case id."""
    predicted, expected = _find(predictions), _find(references)
    if predictions.is_file() and references.is_file():
        return dict.fromkeys(expected, predictions), expected
    if not predicted.keys() & expected.keys():
        raise DatasetError(
            f"{predictions}: none of {_some(predicted)} is among the references {_some(expected)}.",
            remedy="Give a prediction and its reference the same file name, suffixes aside.",
        )
    if predictions.is_file():
        expected = {case: path for case, path in expected.items() if case in predicted}
    return predicted, expected


def _find(path: Path) -> dict[str, Path]:
    """Return the label maps of a folder, or the one given, by case id."""
    if path.is_file():
        return {strip_suffix(path): path}
    if not path.is_dir():
        raise DatasetError(f"{path}: no such file or folder.")
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if is_scan(file) and not is_probabilities(file):
            case = strip_suffix(file)
            if case in found:
                raise DatasetError(
                    f"{path}: {found[case].name} and {file.name} are one case twice."
                )
            found[case] = file
    return found


def _unsegmented(predictions: Path) -> dict[str, str]:
    """Return the scans that were tried and failed, which must not vanish from the scores."""
    cases = read_record(predictions)["cases"]
    return {c["case_id"]: c["error"] for c in cases if c["segmentation"] is None}


def declared_labels(predictions: Path, references: Path) -> LabelSet | None:
    """Return the labels that a file beside the predictions or the references declares."""
    folder = _folder(references)
    record = _folder(predictions) / RECORD
    for path in (record, folder / "dataset.json", folder.parent / "dataset.json"):
        if path.is_file() and "labels" in (data := read_json(path)):
            try:
                if path == record:
                    return LabelSet.from_dict(data["labels"])
                return label_set(data["labels"], data.get("regions"))
            except (AttributeError, TypeError, ValueError) as error:
                raise LabelError(f"{path}: labels cannot be read: {error!r}.") from error
    return None


def found_labels(expected: Mapping[str, Path]) -> LabelSet:
    """Return nameless labels for every value that label maps hold."""
    values = sorted({value for path in expected.values() for value in _values(path)} - {0})
    return LabelSet(values={f"label_{value}": value for value in values})


def _values(path: Path) -> Iterator[int]:
    """Return the values in a label map; none from a damaged one, which its own case will report."""
    try:
        yield from (int(value) for value in np.unique(read_labels(path).array))
    except LaminaError:
        return


def _folder(path: Path) -> Path:
    return path.resolve() if path.is_dir() else path.resolve().parent


def _some(cases: Mapping[str, Path]) -> str:
    return f"{', '.join(list(cases)[:3]) or 'no file'}{', ...' if len(cases) > 3 else ''}"
