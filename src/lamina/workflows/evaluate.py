"""Evaluate: compare predicted with reference label maps, file by file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lamina.data.layouts.msd import label_set
from lamina.errors import DatasetError, LabelError, LaminaError
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.scores import Score, Scores, score_case
from lamina.files import read_json
from lamina.geometry import check_same_grid
from lamina.io import is_scan, read_labels, strip_suffix
from lamina.labels import LabelSet
from lamina.workflows import Progress, no_progress


def evaluate(
    predictions: Path,
    references: Path,
    out: Path | None = None,
    *,
    labels: LabelSet | None = None,
    metrics: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> Scores:
    """Score label maps against their references.

    Files are paired by case id, which is the file's name without its suffix; two single files are a
    pair whatever they are called. A case that cannot be scored is listed with its reason in
    ``failures``, and the others go on.

    Args:
        predictions: A folder of label maps, or one of them.
        references: A folder of label maps, or one of them.
        out: Folder to leave ``scores.csv`` and ``scores.json`` in.
        labels: What the values stand for; by default what ``prediction.json`` beside the
            predictions says, else the references' ``dataset.json``, else every value found in them.
        metrics: Registered names; all of them by default.
        progress: Told of each case when it is done.

    Raises:
        DatasetError: A folder is missing or holds one case twice, or nothing can be paired.
        FileError, LabelError: The description of the labels is damaged.
        UnknownNameError: A metric is not registered.
    """
    names = tuple(metrics or METRICS)
    for name in names:
        METRICS.get(name)
    predicted, expected = _pair(predictions, references)
    labels = labels or _declared_labels(predictions, references) or _found_labels(expected)
    rows: list[Score] = []
    failures = _unsegmented(predictions)
    for done, (case, path) in enumerate(predicted.items(), start=1):
        try:
            rows += _score(case, path, expected.get(case), labels, names)
        except LaminaError as error:
            failures[case] = str(error)
        progress(done, len(predicted), case)
    scores = Scores(
        labels=labels,
        metrics=names,
        rows=tuple(rows),
        failures=failures,
        not_predicted=tuple(c for c in expected if c not in predicted and c not in failures),
    )
    if out:
        scores.write(out)
    return scores


def _score(
    case: str, path: Path, expected: Path | None, labels: LabelSet, metrics: Sequence[str]
) -> list[Score]:
    if expected is None:
        raise DatasetError(f"{path}: has no reference.", remedy="Add it, or remove the prediction.")
    prediction, reference = read_labels(path), read_labels(expected)
    check_same_grid(
        prediction.affine,
        prediction.spatial_shape,
        reference.affine,
        reference.spatial_shape,
        f"{prediction.source} and {reference.source}",
    )
    return score_case(
        case,
        labels.encode(prediction.array[0], prediction.source),
        labels.encode(reference.array[0], reference.source),
        labels,
        reference.spacing,
        metrics,
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
        if is_scan(file):
            case = strip_suffix(file)
            if case in found:
                raise DatasetError(
                    f"{path}: {found[case].name} and {file.name} are one case twice."
                )
            found[case] = file
    return found


def _unsegmented(predictions: Path) -> dict[str, str]:
    """Return the scans that were tried and failed, which must not vanish from the scores."""
    record = predictions / "prediction.json"
    cases = read_json(record).get("cases", []) if record.is_file() else []
    return {c["case_id"]: c["error"] for c in cases if c["segmentation"] is None}


def _declared_labels(predictions: Path, references: Path) -> LabelSet | None:
    """Return the labels that a file beside the predictions or the references declares."""
    folder = _folder(references)
    record = _folder(predictions) / "prediction.json"
    for path in (record, folder / "dataset.json", folder.parent / "dataset.json"):
        if path.is_file() and "labels" in (data := read_json(path)):
            try:
                if path == record:
                    return LabelSet.from_dict(data["labels"])
                return label_set(data["labels"], data.get("regions"))
            except (AttributeError, TypeError, ValueError) as error:
                raise LabelError(f"{path}: labels cannot be read: {error!r}.") from error
    return None


def _found_labels(expected: Mapping[str, Path]) -> LabelSet:
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
