"""Segmentations and what they are compared with: which belong together, and what values mean."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lamina.data.case import Case
from lamina.data.layouts.msd import label_set
from lamina.data.layouts.nnunet import labels_of
from lamina.errors import DatasetError, LabelError, LaminaError, some
from lamina.files import read_json
from lamina.folders.prediction import RECORD, read_record
from lamina.folders.probabilities import is_probabilities
from lamina.io import is_scan, read_labels, strip_suffix
from lamina.labels import LabelSet
from lamina.volume import Volume

ReadPair = Callable[[], tuple[Volume, Volume]]
"""Reads a prediction and its reference as class indices ``(1, *S)`` on one grid."""


def paired(
    predictions: Path, references: Path | None, labels: LabelSet | None
) -> tuple[Mapping[str, ReadPair], Sequence[str], LabelSet]:
    """Return what reads each case, all cases that should be there, and what the values stand for.

    Args:
        predictions: A folder of label maps, or one of them.
        references: The same; without them, those that the record beside the predictions names.
        labels: What the values stand for, if known.

    Raises:
        DatasetError: A folder is missing or holds one case twice, or nothing can be paired.
        FileError, LabelError: The description of the labels is damaged.
    """
    for place in (predictions, references):
        if place and not place.exists():
            raise DatasetError(f"{place}: no such file or folder.")
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
        found.check_grid_of(wanted)
        return _encoded(found, known), _encoded(wanted, known)

    pairs = {case: partial(read, path, expected.get(case)) for case, path in predicted.items()}
    return pairs, [*expected], known


def _encoded(volume: Volume, labels: LabelSet) -> Volume:
    """Return a label map as class indices."""
    return replace(volume, array=labels.encode(volume.array, volume.source))


def _pair(predictions: Path, references: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the predictions and the references that they answer for, each by case id."""
    predicted, expected = _find(predictions), _find(references)
    if predictions.is_file() and references.is_file():
        return dict.fromkeys(expected, predictions), expected
    if not predicted.keys() & expected.keys():
        raise DatasetError(
            f"{predictions}: none of its label maps ({some(predicted, 3) or 'no file'}) is among "
            f"the references ({some(expected, 3) or 'no file'}).",
            remedy="Give a prediction and its reference the same file name, suffixes aside.",
        )
    if predictions.is_file():
        expected = {case: path for case, path in expected.items() if case in predicted}
    return predicted, expected


def _find(path: Path) -> dict[str, Path]:
    """Return the label maps of a folder, or the one given, by case id."""
    if path.is_file():
        return {strip_suffix(path): path}
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


def declared_labels(predictions: Path, references: Path) -> LabelSet | None:
    """Return the labels that a file beside the predictions or the references declares."""
    folder = folder_of(references)
    record = folder_of(predictions) / RECORD
    for path in (record, folder / "dataset.json", folder.parent / "dataset.json"):
        if path.is_file() and "labels" in (data := read_json(path)):
            try:
                if path == record:
                    return LabelSet.from_dict(data["labels"])
                if any(isinstance(value, list) for value in data["labels"].values()):
                    return labels_of(data["labels"], data.get("regions_class_order"))
                return label_set(data["labels"], data.get("regions"))
            except LaminaError as error:
                raise LabelError(f"{path}: {error.message}", remedy=error.remedy) from error
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


def folder_of(path: Path) -> Path:
    """Return a folder of label maps, or that of one of them."""
    return path.resolve() if path.is_dir() else path.resolve().parent
