"""Write what the server withstood into its page, from the record of the load test.

python benchmarks/serve_load.py model.lamina --out docs/serving.json
python tools/serving.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- load:begin -->", "<!-- load:end -->"
TEXT = """\
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


def main() -> None:
    """Replace what stands between the page's markers."""
    page, record = DOCS / "serving.md", json.loads((DOCS / "serving.json").read_text("utf-8"))
    page.write_text(with_section(page.read_text("utf-8"), record), "utf-8")


def with_section(page: str, record: Mapping[str, Any]) -> str:
    """Return the page with the section of a record."""
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n\n{section(record)}\n{END}{after}"


def section(record: Mapping[str, Any]) -> str:
    """Return what is told of a record."""
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
    return TEXT.format(rows="\n".join(lines), **record["machine"])


if __name__ == "__main__":
    main()
