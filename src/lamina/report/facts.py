"""What a report says of data, plan and network: one line each, in words and with units."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from lamina.bundle import Bundle
from lamina.data.fingerprint import Fingerprint
from lamina.data.plan import Plan
from lamina.errors import some
from lamina.geometry import size_unit
from lamina.models.complexity import complexity

_CHOICES = (
    *("orientation", "target_spacing", "normalisation", "region_based", "network", "slice_axis"),
    *("patch_size", "roi_size", "overlap", "batch_size", "mirror_axes", "steps_per_epoch"),
    "epochs",
)
_LISTED = 6


def data_facts(found: Fingerprint) -> dict[str, str]:
    """Return what the scans are: how many, how large, how fine, how bright, what is odd."""
    cases, unit = found.cases, found.unit
    spacings = np.array([case.spacing for case in cases])
    shapes = np.array([case.shape for case in cases])
    turned = Counter(case.orientation for case in cases)
    odd = [f"{case.case_id} ({', '.join(case.oddities)})" for case in cases if case.oddities]
    facts = {
        "Scans": f"{len(cases)}, {found.spatial_dims}D; channels: {', '.join(found.channels)}",
        f"Voxel size, {unit}": _ranges(spacings, ".3g"),
        "Size, voxels": _ranges(shapes, ".0f"),
        "Stored orientation": ", ".join(f"{name} ({n})" for name, n in turned.most_common()),
    }
    for channel, levels in zip(found.channels, found.foreground_intensity, strict=True):
        facts[f"Labelled intensities, {channel}"] = (
            f"median {_level(levels['median'])}, 0.5 to 99.5 %: "
            f"{_level(levels['p00_5'])} to {_level(levels['p99_5'])}"
        )
    names = dict.fromkeys(name for case in cases for name in case.voxels)
    for name in names:
        sizes = [case.voxels.get(name, 0) * prod(case.spacing) for case in cases]
        what = "Volume" if found.spatial_dims == 3 else "Area"
        facts[f"{what} of {name}"] = _sizes(sizes, unit, found.spatial_dims)
    if odd:
        facts["Deserve a look"] = some(odd, _LISTED, separator="; ")
    return facts


def plan_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """Return every choice of a plan: its name, its value, its reason."""
    values: dict[str, Any] = {name: getattr(plan, name) for name in _CHOICES}
    values |= {
        "target_spacing": f"{_times(plan.target_spacing)} {plan.unit}",
        "normalisation": "; ".join(
            f"{channel}: {how.scheme}"
            for channel, how in zip(plan.channels, plan.normalisation, strict=True)
        ),
        "network": ", ".join(
            (plan.network, *(f"{name} = {value}" for name, value in plan.network_options.items()))
        ),
        "patch_size": f"{_times(plan.patch_size)} voxels",
        "roi_size": f"{_times(plan.roi_size)} voxels",
        "mirror_axes": ", ".join(map(str, plan.mirror_axes)) or "none",
        "region_based": "yes" if plan.region_based else "no",
    }
    return [
        (name.replace("_", " "), str(value), plan.reasons.get(name, ""))
        for name, value in values.items()
        if value is not None
    ]


def cost_facts(bundle: Bundle) -> dict[str, str]:
    """Return what a network costs: its weights, and the operations of one window.

    Raises:
        BundleError: It cannot be built.
    """
    name, members, cost = bundle.network["name"], bundle.num_members, window_cost(bundle)
    macs, window = cost["macs"] / 1e9, _times(cost["window"])
    return {
        "Network": name + (f", an ensemble of {members}" * (members > 1)),
        "Parameters": f"{cost['parameters']:,}",
        "Multiply-accumulates": f"{macs:.3g} billion for a window of {window} voxels",
    }


def window_cost(bundle: Bundle) -> dict[str, Any]:
    """Return ``parameters``, of all members, and the ``macs`` that they take for one ``window``.

    Raises:
        BundleError: The network cannot be built.
    """
    window, members = bundle.plan.seen_roi_size, bundle.num_members
    counted = complexity(bundle.config, window)
    return {
        "parameters": counted.parameters * members,
        "macs": counted.macs * members,
        "window": list(window),
    }


def record_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return who made a run, when, with what, from what, as its manifest tells."""
    dataset, machine = record.get("dataset", {}), record.get("machine", {})
    software = record.get("software", {})
    told = {
        "Created": str(record.get("created", "")),
        "Data": _listed([dataset.get(key) for key in ("name", "licence", "source")]),
        "Fold": str(record.get("fold", "")),
        "Scans to train on": str(record.get("num_training_cases", "")),
        "Seed": str(record.get("seed", "")),
        "Software": _listed([f"{name} {version}" for name, version in software.items()]),
        "Machine": _machine(machine) if machine else "",
        "SHA-256": _listed(
            [f"{name} {digest[:12]}…" for name, digest in record.get("hashes", {}).items()]
        ),
    }
    return {name: text for name, text in told.items() if text}


def _machine(machine: Mapping[str, Any]) -> str:
    cores, threads = machine.get("cores"), machine.get("threads")
    return _listed(
        [
            machine.get("platform"),
            f"{cores} cores, {threads} threads",
            f"{machine.get('memory_gb')} GB",
            machine.get("gpu") or "no GPU",
        ]
    )


def _listed(parts: Iterable[Any]) -> str:
    return ", ".join(str(part) for part in parts if part)


def _ranges(rows: Any, digits: str) -> str:
    """Return medians along the axes, and how far they range where they do."""
    medians = " × ".join(f"{value:{digits}}" for value in np.median(rows, axis=0))
    low, high = rows.min(axis=0), rows.max(axis=0)
    if (low == high).all():
        return medians
    ends = (" × ".join(f"{value:{digits}}" for value in end) for end in (low, high))
    return f"median {medians}; {' to '.join(ends)}"


def _sizes(sizes: Sequence[float], unit: str, dims: int) -> str:
    each, called = size_unit(unit, dims)
    present = np.array([size for size in sizes if size > 0]) / each
    if not present.size:
        return "in no scan"
    median, low, high = np.median(present), present.min(), present.max()
    absent = len(sizes) - present.size
    told = f"median {median:.3g} {called}, {low:.3g} to {high:.3g}"
    return told + (f"; absent in {absent} scans" if absent else "")


def _level(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _times(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:.3g}" for size in sizes)
