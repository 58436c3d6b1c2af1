"""Measure how often intervals of the mean hold the true one, in simulated studies.

    python benchmarks/interval_coverage.py --out docs/interval_coverage.json

Takes some minutes and always gives the same record, which ``tools/sections.py`` shows.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from lamina.evaluation.statistics import intervals

PATIENTS = (5, 10, 20, 40, 80)
STUDIES = 1000
RESAMPLES = 999
DICE = (40, 5)
"""Of the Beta distribution that scores are drawn from."""
MEAN = DICE[0] / sum(DICE)
FAILURES = (0.0, 0.05)
"""Shares of patients that get a score of 0."""


def main() -> None:
    """Measure every number of patients, with and without failures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    out = parser.parse_args().out
    intervals.RESAMPLES = RESAMPLES
    record = {
        "studies": STUDIES,
        "resamples": RESAMPLES,
        "mean": MEAN,
        "failures": FAILURES,
        "rows": [
            {"patients": n, "held": [_held(n, share) for share in FAILURES]} for n in PATIENTS
        ],
    }
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


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
