"""Medical Segmentation Decathlon: a ``dataset.json`` that lists pairs of image and label."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.data.case import Case, Cohort, patient_of
from lamina.data.layouts import LAYOUTS, Layout
from lamina.errors import DatasetError, LaminaError
from lamina.files import read_json
from lamina.io import strip_suffix
from lamina.labels import LabelSet


def _matches(folder: Path) -> bool:
    description = folder / "dataset.json"
    if not description.is_file():
        return False
    try:
        return "training" in read_json(description)
    except LaminaError:
        return True


def _read(folder: Path) -> Cohort:
    path = folder / "dataset.json"
    data = read_json(path)
    try:
        channels = data.get("modality") or data["channel_names"]
        return Cohort(
            name=str(data.get("name") or folder.name),
            channels=tuple(channels[key] for key in sorted(channels, key=int)),
            labels=label_set(data["labels"]),
            cases=tuple(_case(folder, entry) for entry in data["training"]),
            licence=str(data.get("licence") or data.get("license") or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path}: not a Decathlon description: {error!r}.",
            remedy="It needs modality, labels and training (a list of image and label).",
        ) from error


def _case(folder: Path, entry: Mapping[str, str]) -> Case:
    image, label = (folder / entry["image"]).resolve(), (folder / entry["label"]).resolve()
    for path in (image, label):
        if not path.is_relative_to(folder.resolve()):
            raise DatasetError(f"{folder / 'dataset.json'}: {path} lies outside the dataset.")
    case_id = strip_suffix(image)
    return Case(case_id=case_id, group=patient_of(case_id), images=(image,), label=label)


def label_set(labels: Mapping[str, Any]) -> LabelSet:
    """Read a ``dataset.json``'s labels: ``{"1": "liver"}`` (Decathlon) or ``{"liver": 1}``."""
    by_value = all(str(key).lstrip("-").isdigit() for key in labels)
    pairs = [(v, int(k)) if by_value else (k, int(v)) for k, v in labels.items()]
    values = {str(name): value for name, value in pairs}
    background = values.pop("background", 0)
    ignore = values.pop("ignore", None)
    return LabelSet(values=values, background=background, ignore=ignore)


LAYOUTS.register("msd")(
    Layout("imagesTr/, labelsTr/ and dataset.json with a training list", _matches, _read)
)
