"""Write what training took into its pages, from the records of the benchmarks.

python benchmarks/time_to_dice.py WORK --out docs/time_to_dice.json
python benchmarks/recipes.py DATA --scratch SCRATCH --out docs/recipes.json
python tools/training.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"time_to_dice": "training.md", "recipes": "reproducing-a-paper.md"}
"""Each record and the page that shows it."""
TIME = """\
`benchmarks/time_to_dice.py` trains each network anew with a longer and a longer time, until a
finished run has a mean Dice of {target} on the validation scans. The clock includes the loader and
one validation at the end. On the hippocampus, fold 0, {cores} cores ({platform}), one after the
other, ahead of all other work:

| network | trained as | tried (s) | sufficed (s) | its steps | Dice | against the first |
|---|---|---|---|---|---|---|
{rows}

nnU-Net's own settings, large batches under SGD, are made for far longer trainings.
"""
RECIPES = """\
Every recipe was trained for one epoch, as long as it says, on the nearest real scans at hand
(`benchmarks/recipes.py`), and every set for two steps as its own plan has it (*auto*). Dice after
so few steps says nothing but that the loop runs to its end; *seconds* are of the steps and a
validation with windows side by side, on one core; *waiting* is the share of them in which training
had to wait for its patches. GLIMS kept little memory by activation checkpointing and, where scans
have no regions, had the loss of structures; MPU-Net saw patches of 128x128x48, for want of memory.
{cores} cores ({platform}) that others used too:

| recipe | scans | steps | seconds | waiting | loss | Dice |
|---|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    """Replace what stands between the pages' markers."""
    for name, page in PAGES.items():
        record = json.loads((DOCS / f"{name}.json").read_text("utf-8"))
        path = DOCS / page
        path.write_text(with_section(path.read_text("utf-8"), name, record), "utf-8")


def with_section(page: str, name: str, record: Mapping[str, Any]) -> str:
    """Return the page with the section of a record."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, after = page.partition(begin)[0], page.partition(end)[2]
    made = {"time_to_dice": time_to_dice, "recipes": recipes}[name](record)
    return f"{before}{begin}\n\n{made}\n{end}{after}"


def time_to_dice(record: Mapping[str, Any]) -> str:
    """Return the table of networks that were trained until they reached a Dice."""
    first = next(iter(record["rows"].values()))
    rows = []
    for model, row in record["rows"].items():
        name, _, how = model.partition(":")
        more = "" if row["reached"] else "more than "
        manner = "nnU-Net v2 would: batch 9, 40x56x40, SGD" if how else "our plan has it"
        tried = ", ".join(str(run["budget"]) for run in row["runs"])
        rows.append(
            f"| {name} | {manner} | {tried} | {more}{row['seconds']:.0f} | {row['steps']} "
            f"| {row['dice']:.3f} | {more}{row['seconds'] / first['seconds']:.1f} |"
        )
    return TIME.format(target=record["target"], rows="\n".join(rows), **record["machine"])


def recipes(record: Mapping[str, Any]) -> str:
    """Return the table of recipes that were tried."""
    rows = [_tried(row) for row in record["rows"]]
    return RECIPES.format(rows="\n".join(rows), **record["machine"])


def _tried(row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['recipe']} | {row['dataset']} | not run: {row['failed']} | | | | |"
    return (
        f"| {row['recipe']} | {row['dataset']} | {row['step']} | {row['elapsed_s']:.0f} "
        f"| {row['waiting']:.1%} | {row['loss']:.2f} | {row['dice']:.2f} |"
    )


if __name__ == "__main__":
    main()
