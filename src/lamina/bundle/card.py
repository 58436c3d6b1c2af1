"""The model card: what a person must know before using a bundle, generated from its data alone."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from lamina.bundle.markdown import ITEMS_SHOWN, escape, listing, product, table, text, words
from lamina.bundle.model import Bundle, build_network, mapping_of
from lamina.bundle.wording import Wording, how_to_use, orientation, wording
from lamina.data.plan import Plan
from lamina.data.ranges import KEY, Ranges, ranges_of
from lamina.geometry import size_unit
from lamina.labels import LabelSet

_NOTHING = "Not recorded."

_USE_AND_LIMITS = """\
For research: to measure {structures} in {scan}s like those it was trained on, by people who look at
what it draws. Research use only; not a medical device.

- It knows the channels and structures listed below and nothing else. What is in none of the
  structures becomes background, or one of them.
- From other {device}s, protocols or patients than those of training, {scan}s may be segmented
  worse, or wrongly without any sign of it. Who the patients were, of what age, sex and illness, is
  not in this file: ask whoever made the data.
- Not for decisions about patients, and not without a person who can judge the result."""

_FLAGGED = """
- `lamina predict` flags {scan}s outside of the range below; others can be wrong, too."""

_LEVELS = {"p00_5": "0.5 % level", "median": "median", "p99_5": "99.5 % level"}

_INTERVALS = "intervals"
"""Where the metrics have them: as the metrics, with ``n`` patients, their ``mean``, and the ends
``low`` and ``high`` of its interval in place of each number."""

_OPTIMISTIC = (
    "Of the validation {scan}s of fold {fold}, on the prepared grid. The best epoch was chosen by "
    "them, so they flatter the model a little; other {scan}s would tell more."
)


def model_card(bundle: Bundle) -> str:
    """Return the card as Markdown.

    Raises:
        BundleError: The network cannot be built, or the weights are not its own.
    """
    plan, ranges = bundle.plan, ranges_of(bundle.training, bundle.plan)
    called = wording(plan)
    used_for = _USE_AND_LIMITS + (_FLAGGED if ranges else "")
    sections = {
        "Intended use and limits": used_for.format(
            structures=listing(plan.labels.foreground), **asdict(called)
        ),
        "What it segments": _structures(plan.labels, called),
        "What it needs": _needs(plan),
        "Data": _data(bundle),
        **({f"Range of the training {called.scan}s": _range(plan, ranges)} if ranges else {}),
        "Validation scores": _scores(bundle),
        "Network": _network(bundle),
        **({"Postprocessing": _postprocessing(bundle)} if bundle.postprocessing else {}),
        "Choices and their reasons": _reasons(plan.reasons),
        "Training": _settings(_without_ranges(bundle.training)),
        "Provenance": _settings(bundle.provenance),
        "How to use it": how_to_use(plan),
    }
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return f"# Segmentation of {listing(plan.labels.foreground)}\n{body}"


def _structures(labels: LabelSet, called: Wording) -> str:
    values = [("background", labels.background), *labels.values.items()]
    rows = [(escape(name), value) for name, value in values]
    parts = [table(("Structure", "Value in the segmentation"), rows)]
    parts += [
        f"{escape(region)}: {' + '.join(map(escape, members))}."
        for region, members in labels.regions.items()
    ]
    if labels.ignore is not None:
        ignored = f"{called.voxel.capitalize()}s labelled {labels.ignore}"
        parts.append(f"{ignored} in the training data were left out.")
    return "\n\n".join(parts)


def _needs(plan: Plan) -> str:
    called = wording(plan)
    size = f"{product(plan.target_spacing)} {plan.unit}"
    rows = [
        ("Dimensions", f"{plan.spatial_dims}D"),
        ("Input channels, in this order", ", ".join(map(escape, plan.channels))),
        (f"{called.voxel.capitalize()} size it works at", size),
        ("Orientation it works in", escape(orientation(plan))),
        ("Training patch", f"{product(plan.patch_size)} {called.voxel}s"),
        ("Sliding window", f"{product(plan.roi_size)} {called.voxel}s"),
    ]
    return table(("Property", "Value"), rows)


def _data(bundle: Bundle) -> str:
    """Say what it was trained on, as far as that is recorded."""
    dataset, hashes = bundle.dataset, mapping_of(bundle.provenance, "hashes")
    training, scans = bundle.training, f"{wording(bundle.plan).scan.capitalize()}s"
    told = {
        "Name": dataset.get("name"),
        "Licence": dataset.get("licence"),
        "Source": dataset.get("source"),
        f"{scans} to train on": training.get("num_training_cases"),
        f"{scans} to choose the best epoch by": training.get("num_validation_cases"),
        **{f"SHA-256 of {escape(name)}": digest for name, digest in hashes.items()},
    }
    rows = [(name, text(value)) for name, value in told.items() if value is not None]
    return table(("Property", "Value"), rows) if rows else _NOTHING


def _range(plan: Plan, ranges: Ranges) -> str:
    """Tabulate what was seen in training, and what is flagged beyond it."""
    unit, called = ranges.unit, wording(plan)
    whole, of_sizes = size_unit(unit, plan.spatial_dims)
    sized = {"Extent": ranges.extent}
    if unit == "mm":  # a pixel measures one pixel
        sized = {called.voxel.capitalize(): ranges.spacing} | sized
    rows = [
        (f"{what}, {axis}, {unit}", each, 1.0)
        for what, of_axes in sized.items()
        for axis, each in zip(called.axes, of_axes, strict=True)
    ]
    for channel, how, levels in zip(
        plan.channels, plan.normalisation, ranges.intensity, strict=True
    ):
        scaled = "" if how.scheme == "ct" else ", deviations from the mean"
        rows += [(f"{escape(channel)}, {_LEVELS[n]}{scaled}", r, 1.0) for n, r in levels.items()]
    rows += [(f"{escape(n)}, {of_sizes}", each, 1 / whole) for n, each in ranges.size.items()]
    cells = [
        (name, _span(each.low, each.high, k), _span(each.least, each.most, k))
        for name, each, k in rows
    ]
    absent = [f"{escape(n)} in {count}" for n, count in ranges.absent.items() if count]
    missing = f" Absent: {', '.join(absent)}." if absent else ""
    head = (
        f"Of {ranges.cases} {called.scan}s.{missing} In each row, one in a thousand such "
        f"{called.scan}s would lie outside of what is expected."
    )
    return f"{head}\n\n" + table(("", "Seen", "Expected"), cells)


def _span(low: float, high: float, scale: float) -> str:
    return " to ".join(text(float(f"{value * scale:.3g}")) for value in (low, high))


def _without_ranges(training: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_ranges(value) if isinstance(value, Mapping) else value
        for name, value in training.items()
        if name != KEY
    }


def _network(bundle: Bundle) -> str:
    parameters = sum(weight.numel() for weight in build_network(bundle).parameters())
    size = sum(weight.numel() * weight.element_size() for weight in bundle.weights.values())
    head = f"{escape(bundle.network['name'])}: {parameters:,} parameters, {size / 1e6:.2f} MB."
    parts = [head, _settings(bundle.network["fields"]), *_maps(bundle)]
    if bundle.num_members > 1:
        parts.append(
            f"An ensemble of {bundle.num_members} such networks: their logits are averaged."
        )
    return "\n\n".join(parts)


def _postprocessing(bundle: Bundle) -> str:
    """Tabulate what is done to segmentations, and what it was chosen by."""
    names = dict.fromkeys(name for step in bundle.postprocessing for name in step)
    rows = [[text(step.get(name)) for name in names] for step in bundle.postprocessing]
    head = "In this order; chosen for the Dice of out-of-fold segmentations before and after it."
    return f"{head}\n\n" + table([*map(words, names)], rows)


def _maps(bundle: Bundle) -> list[str]:
    """Say whose attention maps the network reads, if any."""
    told = bundle.network.get("attention")
    if told is None:
        return []
    start = told["origin"].get("start", "a published checkpoint")
    learnt = "trained from scratch" if start == "scratch" else f"started from {escape(start)}"
    slices = told["origin"].get("slices")
    where = f" on {slices:,} slices of the training scans" if slices else ""
    head = f"It reads attention maps of a vision transformer that is in this file, {learnt}{where}."
    return [head, _settings(told["fields"])]


def _scores(bundle: Bundle) -> str:
    """Tabulate metrics given per structure, with their means; list what else there is."""
    metrics = {name: value for name, value in bundle.metrics.items() if name != _INTERVALS}
    tabulated = {
        name: scores for name, scores in metrics.items() if isinstance(scores, Mapping) and scores
    }
    means = {name: f"mean_{name}" for name in tabulated if f"mean_{name}" in metrics}
    used = {*tabulated, *means.values()}
    others = {name: value for name, value in metrics.items() if name not in used}
    intervals = mapping_of(bundle.metrics, _INTERVALS)
    parts = [_score_table(tabulated, metrics, means, intervals)] if tabulated else []
    if tabulated and "measured_on" not in metrics and "fold" in bundle.training:
        scan, fold = wording(bundle.plan).scan, bundle.training["fold"]
        parts.insert(0, _OPTIMISTIC.format(scan=scan, fold=fold))
    if intervals:
        parts.append("In brackets: n patients, their mean, and its 95 % BCa bootstrap interval.")
    if others or not tabulated:
        parts.append(_settings(others))
    return "\n\n".join(parts)


def _score_table(
    tabulated: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Any],
    means: Mapping[str, str],
    intervals: Mapping[str, Any],
) -> str:
    structures = dict.fromkeys(name for scores in tabulated.values() for name in scores)
    rows = [
        (
            escape(structure),
            *(
                text(scores.get(structure)) + _bracketed(intervals.get(name, {}).get(structure))
                for name, scores in tabulated.items()
            ),
        )
        for structure in structures
    ]
    if means:
        total = {name: means.get(name, "") for name in tabulated}
        rows.append(
            (
                "mean",
                *(text(metrics.get(m)) + _bracketed(intervals.get(m)) for m in total.values()),
            )
        )
    return table(("Structure", *map(words, tabulated)), rows)


def _bracketed(found: Any) -> str:
    """Return an interval with its own mean; nothing where there is no such."""
    if not isinstance(found, Mapping):
        return ""
    span = _span(found["low"], found["high"], 1.0)
    return f" (n {found['n']}: {text(found['mean'])}, {span})"


def _reasons(reasons: Mapping[str, str]) -> str:
    lines = [f"- {words(choice)}: {escape(reason)}" for choice, reason in reasons.items()]
    return "\n".join(lines) or _NOTHING


def _settings(data: Mapping[str, Any]) -> str:
    rows = [(escape(name), text(value)) for name, value in _flat(data)]
    return table(("Setting", "Value"), rows) if rows else _NOTHING


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("optimiser.lr", 0.001)`` for nested mappings of readable length."""
    for name, value in data.items():
        if isinstance(value, Mapping) and 0 < len(value) <= ITEMS_SHOWN:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
