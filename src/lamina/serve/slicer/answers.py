"""What Slicer is told: a model as MONAI Label describes one, a segmentation as a form."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from starlette.responses import Response

from lamina.io import read_labels, write_volume
from lamina.serve.errors import Refusal
from lamina.serve.schemas import Label, Model

SEGMENTATION = "segmentation.nii.gz"

_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")


def described(model: Model) -> dict[str, Any]:
    """Return a model as Slicer lists it."""
    return {
        "type": "segmentation",
        "labels": [label.name for label in model.labels],
        "dimension": model.spatial_dims,
        "description": model.title,
        "config": {},
    }


def answered(
    job: Mapping[str, Any], path: Path | None, labels: Sequence[Label], params: Mapping[str, Any]
) -> tuple[dict[str, Any], str, bytes]:
    """Return what is told of a segmentation, its file's name, and the file.

    Slicer names segments in the order of the values that it finds, so only structures that were
    found are listed. It takes 0 for the background; where that means a structure, structures are
    numbered anew.

    Args:
        job: As the interface shows it.
        path: The segmentation.
        labels: Of the model.
        params: What Slicer asked for; ``result_extension`` is heeded.

    Raises:
        Refusal: There is no segmentation.
    """
    if path is None:
        raise Refusal(409, "The job has left no segmentation.")
    suffix = params.get("result_extension")
    name = f"segmentation{suffix if suffix in _SUFFIXES else '.nii.gz'}"
    volume = read_labels(path)
    values = {label.name: label.value for label in labels}
    if min(values.values()) < 1:
        numbers = {value: number for number, value in enumerate(values.values(), start=1)}
        array = np.zeros(volume.array.shape, np.uint8)
        for value, number in numbers.items():
            array[volume.array == value] = number
        volume = replace(volume, array=array)
        values = {name: numbers[value] for name, value in values.items()}
    found = set(np.unique(volume.array).tolist())
    with TemporaryDirectory() as folder:
        write_volume(volume, Path(folder) / name)
        content = (Path(folder) / name).read_bytes()
    told = {
        "label_names": {name: value for name, value in values.items() if value in found},
        "flags": job["flags"],
    }
    return told, name, content


def as_form(params: Mapping[str, Any], name: str, content: bytes) -> Response:
    """Return a form of two parts: ``params``, and the file."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n'
        f"Content-Type: application/json\r\n\r\n{json.dumps(params)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")
