"""The model card: what a person must know before using a bundle, generated from its data alone."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lamina.bundle.model import Bundle, build_network
from lamina.data.plan import Plan
from lamina.labels import LabelSet

_ITEMS_SHOWN = 8
"""Longer lists and mappings are counted, not listed."""

_NOTHING = "Not recorded."

_LIMITS = (
    "Research use only; not a medical device.\n\n"
    "The model knows the channels and structures listed above and nothing else."
)

_USE = """\
On a scan, or a folder of scans:

    lamina predict -m FILE.lamina -i SCAN -o OUT

From Python:

    import lamina

    segmentation = lamina.load("FILE.lamina").predict("SCAN.nii.gz")"""


def model_card(bundle: Bundle) -> str:
    """Return the card as Markdown.

    Raises:
        BundleError: The network cannot be built, or the weights are not its own.
    """
    plan = bundle.plan
    sections = {
        "What it segments": _structures(plan.labels),
        "What it needs": _needs(plan),
        "Network": _network(bundle),
        **({"Postprocessing": _postprocessing(bundle)} if bundle.postprocessing else {}),
        "Validation scores": _scores(bundle.metrics),
        "Choices and their reasons": _reasons(plan.reasons),
        "Training": _settings(bundle.training),
        "Provenance": _settings(bundle.provenance),
        "Intended use and limits": _LIMITS,
        "How to use it": _USE,
    }
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return f"# Segmentation of {_listing(plan.labels.foreground)}\n{body}"


def _structures(labels: LabelSet) -> str:
    values = [("background", labels.background), *labels.values.items()]
    rows = [(_escape(name), value) for name, value in values]
    parts = [_table(("Structure", "Value in the segmentation"), rows)]
    parts += [
        f"{_escape(region)}: {' + '.join(map(_escape, members))}."
        for region, members in labels.regions.items()
    ]
    if labels.ignore is not None:
        parts.append(f"Voxels labelled {labels.ignore} in the training data were left out.")
    return "\n\n".join(parts)


def _needs(plan: Plan) -> str:
    rows = [
        ("Dimensions", f"{plan.spatial_dims}D"),
        ("Input channels, in this order", ", ".join(map(_escape, plan.channels))),
        ("Voxel size it works at", f"{_product(plan.target_spacing)} mm"),
        ("Orientation it works in", _escape(plan.orientation)),
        ("Training patch", f"{_product(plan.patch_size)} voxels"),
        ("Sliding window", f"{_product(plan.roi_size)} voxels"),
    ]
    return _table(("Property", "Value"), rows)


def _network(bundle: Bundle) -> str:
    parameters = sum(weight.numel() for weight in build_network(bundle).parameters())
    size = sum(weight.numel() * weight.element_size() for weight in bundle.weights.values())
    head = f"{_escape(bundle.network['name'])}: {parameters:,} parameters, {size / 1e6:.2f} MB."
    parts = [head, _settings(bundle.network["fields"]), *_maps(bundle)]
    if bundle.num_members > 1:
        parts.append(
            f"An ensemble of {bundle.num_members} such networks: their logits are averaged."
        )
    return "\n\n".join(parts)


def _postprocessing(bundle: Bundle) -> str:
    """Tabulate what is done to segmentations, and what it was chosen by."""
    names = dict.fromkeys(name for step in bundle.postprocessing for name in step)
    rows = [[_text(step.get(name)) for name in names] for step in bundle.postprocessing]
    head = "In this order; chosen for the Dice of out-of-fold segmentations before and after it."
    return f"{head}\n\n" + _table([*map(_words, names)], rows)


def _maps(bundle: Bundle) -> list[str]:
    """Say whose attention maps the network reads, if any."""
    told = bundle.network.get("attention")
    if told is None:
        return []
    start = told["origin"].get("start", "a published checkpoint")
    learnt = "trained from scratch" if start == "scratch" else f"started from {_escape(start)}"
    slices = told["origin"].get("slices")
    where = f" on {slices:,} slices of the training scans" if slices else ""
    head = f"It reads attention maps of a vision transformer that is in this file, {learnt}{where}."
    return [head, _settings(told["fields"])]


def _scores(metrics: Mapping[str, Any]) -> str:
    """Tabulate metrics given per structure, with their means; list what else there is."""
    tabulated = {
        name: scores for name, scores in metrics.items() if isinstance(scores, Mapping) and scores
    }
    means = {name: f"mean_{name}" for name in tabulated if f"mean_{name}" in metrics}
    used = {*tabulated, *means.values()}
    others = {name: value for name, value in metrics.items() if name not in used}
    parts = [_score_table(tabulated, metrics, means)] if tabulated else []
    if others or not tabulated:
        parts.append(_settings(others))
    return "\n\n".join(parts)


def _score_table(
    tabulated: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Any],
    means: Mapping[str, str],
) -> str:
    structures = dict.fromkeys(name for scores in tabulated.values() for name in scores)
    rows = [
        (_escape(structure), *(_text(scores.get(structure)) for scores in tabulated.values()))
        for structure in structures
    ]
    if means:
        rows.append(("mean", *(_text(metrics.get(means.get(name, ""))) for name in tabulated)))
    return _table(("Structure", *map(_words, tabulated)), rows)


def _reasons(reasons: Mapping[str, str]) -> str:
    lines = [f"- {_words(choice)}: {_escape(reason)}" for choice, reason in reasons.items()]
    return "\n".join(lines) or _NOTHING


def _settings(data: Mapping[str, Any]) -> str:
    rows = [(_escape(name), _text(value)) for name, value in _flat(data)]
    return _table(("Setting", "Value"), rows) if rows else _NOTHING


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("optimiser.lr", 0.001)`` for nested mappings of readable length."""
    for name, value in data.items():
        if isinstance(value, Mapping) and 0 < len(value) <= _ITEMS_SHOWN:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _text(value: Any) -> str:
    """Return a value as a reader wants it: four digits, no long lists, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, (list, tuple, Mapping)):
        if isinstance(value, Mapping) or len(value) > _ITEMS_SHOWN:
            return f"{len(value)} entries"
        return ", ".join(map(_text, value))
    return _escape(value)


def _product(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:.4g}" for size in sizes)


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(map(_escape, names[:_ITEMS_SHOWN]))
    return shown if len(names) <= _ITEMS_SHOWN else f"{shown} and {len(names) - _ITEMS_SHOWN} more"


def _words(name: str) -> str:
    return _escape(name).replace("_", " ")


def _escape(value: Any) -> str:
    """Return text that Markdown shows as it stands: names come from other people's files."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(value).split()))
