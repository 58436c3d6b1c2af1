"""Medical Segmentation Decathlon: a ``dataset.json`` that lists pairs of image and label."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.listing import inside
from lamina.errors import DatasetError, LabelError, LaminaError
from lamina.files import read_json
from lamina.io import strip_suffix
from lamina.labels import LabelSet
from lamina.terminology import read_terms

_log = logging.getLogger(__name__)


def lists_cases(folder: Path) -> bool:
    """Tell whether the folder has a ``dataset.json`` that lists cases, or is too damaged to say."""
    description = folder / "dataset.json"
    if not description.is_file():
        return False
    try:
        data = read_json(description)
    except LaminaError:
        return True
    return not isinstance(data, dict) or "training" in data


def _read(folder: Path) -> Cohort:
    path = folder / "dataset.json"
    task = read_task(path)
    try:
        cases = tuple(_case(path, entry) for entry in read_json(path)["training"])
        return Cohort(cases=cases, **task)
    except (AttributeError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: not a Decathlon description: {error!r}.",
            remedy="It needs modality, labels and training (a list of image and label).",
        ) from error


def _case(description: Path, entry: Mapping[str, str]) -> Case:
    image, label = inside(description, entry["image"]), inside(description, entry["label"])
    case_id = strip_suffix(image)
    return Case(case_id=case_id, group=patient_of(case_id), images=(image,), label=label)


def read_task(description: Path) -> dict[str, Any]:
    """Read what a ``dataset.json`` says of the task.

    Returns:
        Fields of a :class:`Cohort`: ``name``, ``licence``, ``source``, and ``channels``,
        ``labels`` and ``region_based`` where they are declared.

    Raises:
        DatasetError: Something is not of the form that these files have.
        LabelError: The labels contradict themselves.
    """
    data = read_json(description)
    try:
        task: dict[str, Any] = {
            "name": str(data.get("name") or description.parent.name),
            "licence": str(data.get("licence") or data.get("license") or ""),
            "source": str(data.get("reference") or ""),
        }
        if channels := data.get("modality") or data.get("channel_names"):
            task["channels"] = tuple(str(channels[key]) for key in sorted(channels, key=int))
        if "labels" in data:
            labels = label_set(data["labels"], data.get("regions"))
            task["labels"] = replace(labels, terms=read_terms(data.get("terms", {})))
            asked = data.get("region_based") is True
            task["region_based"] = asked and draws_regions(labels, description)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{description}: cannot be understood: {error!r}.") from error
    return task


def draws_regions(labels: LabelSet, description: Path) -> bool:
    """Tell whether label maps follow from the regions; where there are any, say why not."""
    try:
        return bool(labels.region_drawing)
    except LabelError as error:
        _log.warning("%s: structures are trained on in place of regions. %s", description, error)
        return False


def label_set(
    labels: Mapping[str, Any], regions: Mapping[str, Sequence[str]] | None = None
) -> LabelSet:
    """Read a ``dataset.json``'s labels: ``{"1": "liver"}`` (Decathlon) or ``{"liver": 1}``.

    Regions, where there are any, are named lists of structures.
    """
    unions = {str(name): tuple(members) for name, members in (regions or {}).items()}
    by_value = all(str(key).lstrip("-").isdigit() for key in labels)
    pairs = [(v, int(k)) if by_value else (k, _whole(v)) for k, v in labels.items()]
    values = {str(name): value for name, value in pairs}
    if len(values) < len(pairs):
        raise LabelError(f"labels: one name stands for several values in {dict(labels)}.")
    special = {name.lower(): name for name in values if name.lower() in ("background", "ignore")}
    background = values.pop(special.get("background", ""), 0)
    ignore = values.pop(special.get("ignore", ""), None)
    return LabelSet(values=values, background=background, ignore=ignore, regions=unions)


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, str) else index(value)


LAYOUTS.register("msd")(
    Layout("imagesTr/, labelsTr/ and dataset.json with a training list", lists_cases, _read)
)
