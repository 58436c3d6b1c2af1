"""Writing an exported model: whole, compared with the original, or not at all."""

import importlib
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any

from lamina.bundle import Bundle, model_card
from lamina.errors import ExportError
from lamina.export.container import Exported, seal
from lamina.export.graphs import refusing
from lamina.export.parity import WindowParity, compare
from lamina.export.targets import MODEL, TARGETS, Graphs, Network, Precision
from lamina.files import atomic_path
from lamina.inference.backend import TorchNetwork

MAX_RELATIVE_ERROR = 1e-3
"""Largest difference of fp32 logits, in units of the largest, that rounding can explain."""

_BATCHES = (1, 2)
"""Windows in each batch that exported and original network are compared on."""


def write_exported(
    bundle: Bundle,
    graphs: Graphs,
    target: str,
    out: Path,
    *,
    source: Mapping[str, Any],
    precision: Precision = "fp32",
    refine: Callable[[Path], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write the folder of an exported model, atomically, after comparing it with the original.

    Args:
        bundle: The model.
        graphs: Its networks.
        target: Registered name.
        out: Folder to write.
        source: What to keep of the file that the model was read from.
        precision: What ``refine`` leaves the network in.
        refine: Called with the unfinished folder before the comparison; may change the network,
            and returns what to add to the report.

    Returns:
        The report.

    Raises:
        ExportError: The network cannot be exported, or computes something else than the original.
        FileError: The folder cannot be written.
        ImportError: A package of the target is not installed.
    """
    chosen = TARGETS.get(target)
    for package in chosen.packages:
        importlib.import_module(package)
    with atomic_path(out) as part:
        part.mkdir()
        chosen.write(bundle, graphs, part)
        more = refine(part) if refine else {}
        with refusing(target):
            found = _on_noise(bundle, graphs, chosen.network(part, MODEL))
        largest = MAX_RELATIVE_ERROR if precision == "fp32" else inf
        if not found.relative_error <= largest:  # which NaN is not, either
            raise ExportError(
                f"{target}: the exported network's logits are up to {found.max_abs_error:.2g} off "
                f"those of the original, which reach {found.max_abs_logit:.2g}.",
                remedy="Export it to another target, or predict with --backend torch.",
            )
        report = {"target": target, "precision": precision, "noise": found.as_dict(), **more}
        seal(
            part, _record(bundle, target, precision, source), _card(bundle, target, source), report
        )
    return report


def _on_noise(bundle: Bundle, graphs: Graphs, exported: Network) -> WindowParity:
    example = graphs[MODEL].example.numpy()
    batches = (example[:count] for count in _BATCHES)
    original = TorchNetwork(graphs[MODEL].network)
    return compare(original, exported, batches, region_based=bundle.plan.region_based)


def _record(
    bundle: Bundle, target: str, precision: Precision, source: Mapping[str, Any]
) -> Exported:
    return Exported(
        target=target,
        precision=precision,
        plan=bundle.plan,
        postprocessing=bundle.postprocessing,
        network=bundle.network,
        training=bundle.training,
        metrics=bundle.metrics,
        provenance=bundle.provenance,
        source=dict(source),
    )


def _card(bundle: Bundle, target: str, source: Mapping[str, Any]) -> str:
    licence = bundle.dataset.get("licence") or "not recorded"
    return (
        f"{model_card(bundle)}\n## This export\n\n"
        f"Made for {target} from the model with SHA-256 `{source['sha256']}`; how far it is from "
        "that stands in `parity.json`.\n\n"
        f"    {TARGETS.get(target).how_to_run.format(folder='THIS_FOLDER')}\n\n"
        f"Licence of the training data, whose terms may bind the weights: "
        f"{licence}. The code that runs it, Lamina, is under Apache 2.0.\n"
    )
