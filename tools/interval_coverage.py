"""Measure how often intervals hold the true mean, and write it into the page on statistics.

    python tools/interval_coverage.py

The simulations take some minutes and always give the same ``docs/interval_coverage.json``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lamina.evaluation.statistics import intervals

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- coverage:begin -->", "<!-- coverage:end -->"
PATIENTS = (5, 10, 20, 40, 80)
STUDIES = 1000
RESAMPLES = 999
DICE = (40, 5)
"""Of the Beta distribution that scores are drawn from."""
MEAN = DICE[0] / sum(DICE)
FAILURES = (0.0, 0.05)
"""Shares of patients that get a score of 0."""
TEXT = """\
  Here is how often the 95 % interval held the true mean, in {studies} simulated studies each and
  with {resamples} resamples (`tools/interval_coverage.py`).

  | patients | Dice around {mean:.2f} | the same, and {failed:.0f} % of them fail with Dice 0 |
  |---|---|---|
{rows}
"""


def main() -> None:
    """Measure, and replace what stands between the page's markers."""
    record = measured()
    (DOCS / "interval_coverage.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    page = DOCS / "statistics.md"
    page.write_text(with_section(page.read_text("utf-8"), record), "utf-8")


def measured() -> dict[str, Any]:
    """Return the record of the shares of intervals that held the true mean."""
    intervals.RESAMPLES = RESAMPLES
    return {
        "studies": STUDIES,
        "resamples": RESAMPLES,
        "mean": MEAN,
        "failures": FAILURES,
        "rows": [
            {"patients": n, "held": [_held(n, share) for share in FAILURES]} for n in PATIENTS
        ],
    }


def with_section(page: str, record: Mapping[str, Any]) -> str:
    """Return the page with the section of a record."""
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n\n{section(record)}\n  {END}{after}"


def section(record: Mapping[str, Any]) -> str:
    """Return what is told of a record."""
    rows = [
        f"  | {row['patients']} | {' | '.join(f'{100 * held:.0f} %' for held in row['held'])} |"
        for row in record["rows"]
    ]
    told = {name: record[name] for name in ("studies", "resamples", "mean")}
    return TEXT.format(rows="\n".join(rows), failed=100 * record["failures"][-1], **told)


def _held(patients: int, failures: float) -> float:
    """Return the share of studies whose interval holds the mean of all patients there are."""
    rng, held = np.random.default_rng(patients), 0
    for _ in range(STUDIES):
        scores = rng.beta(*DICE, patients) * (rng.random(patients) >= failures)
        found = intervals.mean_interval(scores)
        held += found.low <= MEAN * (1 - failures) <= found.high
    return held / STUDIES


if __name__ == "__main__":
    main()
