"""Write what benchmarks measured into the sections of pages that show it, from their records.

python benchmarks/interval_coverage.py --out docs/interval_coverage.json
python benchmarks/recipes.py DATA --scratch SCRATCH --out docs/recipes.json
python benchmarks/serve_load.py model.lamina --out docs/serving.json
python benchmarks/time_to_dice.py WORK --out docs/time_to_dice.json
python tools/sections.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
COVERAGE = """\
Here is how often the 95 % interval held the true mean, in {studies} simulated studies each and
with {resamples} resamples (`benchmarks/interval_coverage.py`).

| patients | Dice around {mean:.2f} | the same, and {failed:.0f} % of them fail with Dice 0 |
|---|---|---|
{rows}
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
SERVING = """\
`benchmarks/serve_load.py`, on {cores} cores that others used too ({platform}), with an untrained
network and scans of noise; the figures are of this one run.

| | load | soak |
|---|---|---|
{rows}

*Load*: clients send a scan each, wait, fetch the result and send the next; where the queue is
full they are sent away and come again. *Soak*: the same while workers are killed and the server
is ended, in turn by SIGTERM and SIGKILL, and started again. *Lost* are jobs that were accepted
and are not there or did not end; *differing* are results that are not the same bytes as the
others. Memory is the median of each quarter of the time.
"""
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


def main() -> None:
    """Replace what stands between the pages' markers."""
    for name, (page, _) in PAGES.items():
        record = json.loads((DOCS / f"{name}.json").read_text("utf-8"))
        path = DOCS / page
        path.write_text(with_section(path.read_text("utf-8"), name, record), "utf-8")


def with_section(page: str, name: str, record: Mapping[str, Any]) -> str:
    """Return the page with the section of a record, as far from the margin as its markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, after = page.partition(begin)[0], page.partition(end)[2]
    _, render = PAGES[name]
    margin = before.rpartition("\n")[2]
    return f"{before}{begin}\n\n{indent(render(record), margin)}\n{margin}{end}{after}"


def interval_coverage(record: Mapping[str, Any]) -> str:
    """Return the table of the shares of intervals that held the true mean."""
    rows = [
        f"| {row['patients']} | {' | '.join(f'{100 * held:.0f} %' for held in row['held'])} |"
        for row in record["rows"]
    ]
    told = {name: record[name] for name in ("studies", "resamples", "mean")}
    return COVERAGE.format(rows="\n".join(rows), failed=100 * record["failures"][-1], **told)


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


def serving(record: Mapping[str, Any]) -> str:
    """Return the table of what the server withstood."""
    parts = [record["load"], record["soak"]]
    rows = {
        "clients": [part["clients"] for part in parts],
        "seconds": [part["seconds"] for part in parts],
        "jobs accepted": [part["accepted"] for part in parts],
        "sent away (503)": [part["answers"].get("503", 0) for part in parts],
        "workers killed": [part.get("workers_killed", 0) for part in parts],
        "server restarted": [
            ", ".join(f"{n} × {how}" for how, n in part.get("server_restarts", {}).items()) or 0
            for part in parts
        ],
        "states at the end": [
            ", ".join(f"{n} {state}" for state, n in part["states"].items()) for part in parts
        ],
        "**lost**": [part["lost"] for part in parts],
        "**differing**": [part["differing"] for part in parts],
        "median wait, s": [part["median_wait_s"] for part in parts],
        "memory of the server, MB": [" → ".join(map(str, part["server_mb"])) for part in parts],
        "memory of all workers, MB": [" → ".join(map(str, part["workers_mb"])) for part in parts],
    }
    lines = (f"| {name} | {' | '.join(map(str, values))} |" for name, values in rows.items())
    return SERVING.format(rows="\n".join(lines), **record["machine"])


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


PAGES = {
    "interval_coverage": ("statistics.md", interval_coverage),
    "recipes": ("reproducing-a-paper.md", recipes),
    "serving": ("serving.md", serving),
    "time_to_dice": ("training.md", time_to_dice),
}
"""Each record, the page that shows it, and how."""

if __name__ == "__main__":
    main()
