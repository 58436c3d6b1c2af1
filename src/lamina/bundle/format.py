"""The bundle file ``name.lamina``: one model in one zip of four members, no pickle and no code.

======================= ====================================================================
``weights.safetensors``  the network's state
``bundle.json``          network, plan, training, metrics, provenance, as strict UTF-8 JSON
``README.md``            model card, generated from the other two
``SHA256SUMS``           checksums of the other three, as ``sha256sum -c`` reads them
======================= ====================================================================
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from lamina.bundle.archive import CARD, FRESH_COPY, RECORD, WEIGHTS, read_archive, write_archive
from lamina.bundle.card import model_card
from lamina.bundle.model import Bundle
from lamina.data.plan import Plan
from lamina.errors import BundleError, LaminaError

SUFFIX = ".lamina"
FORMAT_VERSION = 2
"""Goes up whenever ``bundle.json`` or the members change; readers refuse newer files. A file says
the oldest version that it can be read as: 2 brought ensembles and postprocessing."""

_SECTIONS = {"network", "plan", "training", "metrics", "provenance"}
_POSTPROCESSING = "postprocessing"


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write ``bundle`` to ``path``, atomically; equal bundles give equal bytes.

    The order of keys is kept, not sorted: that of the labels is the class order.

    Raises:
        BundleError: The name does not end in ``.lamina``, the weights are not the network's, or a
            record holds what strict JSON cannot, such as NaN.
        FileError: The file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise BundleError(
            f"{path}: a bundle's name must end in {SUFFIX}.",
            remedy=f"Use {path.stem or 'model'}{SUFFIX}.",
        )
    content = {
        CARD: model_card(bundle).encode(errors="backslashreplace"),
        RECORD: _write_record(bundle, path),
        WEIGHTS: save_safetensors(_packed(bundle.weights)),
    }
    write_archive(path, content)


def load_bundle(path: Path) -> Bundle:
    """Read a bundle, trusting nothing in it before it is checked.

    Raises:
        BundleError: The file is missing, damaged, altered, unsafe, made by a newer Lamina, or its
            content contradicts itself.
    """
    members = read_archive(path)
    record, steps = _read_record(path, members[RECORD])
    weights = _read_weights(path, members[WEIGHTS])
    try:
        plan = Plan.from_dict(record.pop("plan"))
        return Bundle(**record, plan=plan, weights=weights, postprocessing=steps, source=str(path))
    except BundleError:
        raise
    except LaminaError as error:
        raise BundleError(f"{path}: {RECORD}: {error}", remedy=FRESH_COPY) from error


def _packed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies in plain layout: safetensors takes neither shared nor channels-last memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }


def _write_record(bundle: Bundle, path: Path) -> bytes:
    steps = list(bundle.postprocessing)
    record = {
        "format_version": 2 if steps or bundle.num_members > 1 else 1,
        "network": bundle.network,
        "plan": bundle.plan.as_dict(),
        "training": bundle.training,
        "metrics": bundle.metrics,
        "provenance": bundle.provenance,
    } | ({_POSTPROCESSING: steps} if steps else {})
    try:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"{path}: {RECORD} would not be strict JSON: {error}.",
            remedy="Record plain data, and a missing number as null instead of NaN.",
        ) from error


def _read_record(path: Path, data: bytes) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """Return the sections, each of them a mapping, and the steps of postprocessing."""
    record = _strict_json(path, data)
    version = record.pop("format_version", None) if isinstance(record, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{path}: {RECORD} has no valid format_version.", remedy=FRESH_COPY)
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path}: made by a newer Lamina (format {version}, known up to {FORMAT_VERSION}).",
            remedy="Upgrade Lamina.",
        )
    steps = record.pop(_POSTPROCESSING, []) if version > 1 else []
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise BundleError(
            f"{path}: {RECORD}: {_POSTPROCESSING} must be a list of mappings.", remedy=FRESH_COPY
        )
    sections = {name: section for name, section in record.items() if isinstance(section, dict)}
    if odd := sorted(sections.keys() ^ _SECTIONS | record.keys() - sections.keys()):
        raise BundleError(
            f"{path}: {RECORD} must hold the mappings {', '.join(sorted(_SECTIONS))} and nothing "
            f"else; missing, wrong or unknown: {', '.join(odd)[:200]}.",
            remedy=FRESH_COPY,
        )
    return sections, tuple(steps)


def _strict_json(path: Path, data: bytes) -> Any:
    """Decode JSON and refuse NaN and 1e999, which Python would read."""
    try:
        record = json.loads(data.decode())
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path}: {RECORD} is not strict JSON: {error}.", remedy=FRESH_COPY
        ) from error
    return record


def _read_weights(path: Path, data: bytes) -> dict[str, torch.Tensor]:
    try:
        return load_safetensors(data)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{path}: {WEIGHTS} is not readable as safetensors: {error}.", remedy=FRESH_COPY
        ) from error
