"""Write the tables of networks: what was counted and measured, beside what papers print.

    python benchmarks/step_time.py --out docs/networks.json
    python tools/networks.py

The first measures time and memory, the second renders ``docs/networks.md`` and the README's table.
"""

import json
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from lamina.workflows.models import ModelFacts, list_models

ROOT = Path(__file__).resolve().parents[1]
COSTS = ROOT / "docs" / "networks.json"
BEGIN, END = "<!-- networks:begin -->", "<!-- networks:end -->"
MAIN = ("glims", "lightmedseg", "lgmsnet_2d", "lgmsnet_3d", "dainet", "mpunet")
"""The papers' own networks, which the README lists."""
HEADER = """\
# Networks

Parameters and operations are counted by `lamina models`, for the channels, classes and image size
given in the second column; "printed" is what the paper says, with its own digits. Operations are
multiply-accumulates of convolutions and matrix products in one prediction; normalisation,
activation and resizing are not in them. "Unused" weights are of modules whose result the published
network never uses; they are not trained.
"""


def main() -> None:
    """Render both."""
    facts = list_models()
    costs = json.loads(COSTS.read_text("utf-8")) if COSTS.is_file() else {"rows": {}}
    (ROOT / "docs" / "networks.md").write_text("\n".join(_page(facts, costs)) + "\n", "utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    table = "\n".join(_table([fact for fact in facts if fact.name in MAIN]))
    readme.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}", "utf-8")


def _page(facts: list[ModelFacts], costs: dict[str, Any]) -> Iterable[str]:
    yield HEADER
    for source, group in groupby(sorted(facts, key=attrgetter("source")), attrgetter("source")):
        members = list(group)
        title, _, idea = source.partition(": ")
        yield f"## {title}\n\n{idea[:1].upper()}{idea[1:]}\n"
        yield from _table(members)
        yield ""
        for fact in members:
            if fact.published and fact.published.note:
                yield f"- `{fact.name}` ({fact.published.where}): {fact.published.note}"
        yield ""
    yield from _measured(costs)


def _table(facts: list[ModelFacts]) -> Iterable[str]:
    yield "| network | counted for | parameters | printed | GMAC | printed |"
    yield "|---|---|---|---|---|---|"
    for fact in facts:
        size = "×".join(map(str, fact.size))
        dead = fact.parameters - fact.live_parameters
        parameters = f"{fact.parameters:,}" + (f" ({dead:,} of them unused)" if dead else "")
        printed = fact.published
        yield (
            f"| `{fact.name}` | {fact.in_channels}→{fact.num_classes}, {size} | {parameters} "
            f"| {(printed and printed.parameters) or ''} | {fact.macs / 1e9:.2f} "
            f"| {(printed and printed.macs) or ''} |"
        )


def _measured(costs: dict[str, Any]) -> Iterable[str]:
    rows = costs["rows"]
    if not rows:
        return
    threads = next(iter(rows.values()))["threads"]
    yield "## Time and memory\n"
    yield (
        f"One image, one channel, two classes, float32, {threads} thread{'s'[: threads > 1]} of "
        f"{costs['processor']}; medians of {costs['repeats']}. A training step is a forward and a "
        "backward pass; memory is what they add to the process, weights included.\n"
    )
    yield "| network | image | prediction (s) | training step (s) | training memory (MB) |"
    yield "|---|---|---|---|---|"
    for name, row in rows.items():
        image = "×".join(map(str, row["size"]))
        yield (
            f"| `{name}` | {image} | {row['predict_s']:.3f} | {row['step_s']:.3f} "
            f"| {row['memory_mb']:,} |"
        )


if __name__ == "__main__":
    main()
