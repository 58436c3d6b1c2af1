"""Write the page on metrics from their registry and from what was measured.

    python benchmarks/metric_conformance.py --out docs/metric_conformance.json
    python benchmarks/metrics.py --out docs/metric_speed.json
    python tools/metrics.py

The first holds our metrics against others', the second times them, the third renders
``docs/metrics.md``.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lamina.evaluation.metrics import METRICS, Metric, Outcome
from lamina.evaluation.protocols import PROTOCOLS

DOCS = Path(__file__).resolve().parents[1] / "docs"
BETTER = {True: "higher", False: "lower", None: "nearer 0"}
HEADER = """\
# Metrics

```sh
lamina evaluate -p predictions -r labelsTr --out scores                  # all, a few of them shown
lamina evaluate -p predictions -r labelsTr --metrics all                 # all shown
lamina evaluate -p predictions -r labelsTr --metrics dice,assd           # these alone
lamina evaluate -p predictions -r labelsTr --probabilities probabilities # ECE and Brier too
lamina evaluate -p predictions -r labelsTr --protocol transunet          # as a paper measured
```

Every metric is computed per case and per structure or region, in millimetres of the scan's own
grid or, for pictures that do not tell their pixels' size, in pixels. Voxels with the ignored
label count on neither side.

**A missed structure never improves a score.** A metric with a better direction takes its worst
value where a structure was missed (the prediction is empty, the reference is not) or invented
(the other way round), and does not apply where it was rightly left out. The table prints each
rule, `scores.json` holds them, and every row names the rule that applied. Since a worst value
says little of how well structures are outlined once they are found, the mean over the cases in
which both masks hold the structure stands below, as "if found", wherever any was missed or
invented; each with its number of cases. In `scores.json` these are `mean` and `n`,
`conditional_mean` and `conditional_n`.

## Definitions

"Missed", "invented" and "left out" say what stands in for the formula. The grid's diagonal and
volume are those of the whole scan.
"""
CHOICES = """\
- **Surfaces** of HD, HD95 and ASSD are the centres of those voxels of a mask that have a face
  neighbour outside it; what lies beyond the scan is outside.
- **HD95** takes the 95th percentile of each direction (linear interpolation) and then the
  larger.
- **ASSD** is the mean of all distances of both directions together.
- **NSD** weighs pieces of surface between voxels by their area, as its authors do. The
  tolerance is 1 mm (1 pixel), whatever the organ.
- **Specificity, accuracy and MCC** count the background of the whole scan: the larger the scan,
  the better they look.
- **Lesions** are parts of a mask whose voxels touch at least at corners. As in BraTS 2023, the
  reference is widened by 3 mm (3 pixels): parts of it that then meet are one lesion, and predicted
  parts that reach into it belong to the lesion. A lesion is found if any part belongs to it; its
  Dice is that of its own voxels with all parts that belong to it; parts that belong to none are
  invented. BraTS also leaves out lesions below a size, and widens meningiomas and metastases by
  1 mm; here all lesions count, and all are widened alike.
- **ECE and Brier** need `CASE_probabilities.npy`, an array `(classes, *S)` on the
  segmentation's grid with the background first, or a `.nii.gz` of as many channels, beside the
  predictions or in the folder that `--probabilities` names. Unless that or they are asked for, they
  are measured only where every case has some. A region's probability is the sum of its structures'.
  They look at the reference's box widened by 3 voxels, enough for doubts about
  an outline to count, for over a whole scan the background that nobody doubts would hide every
  fault; and at whatever is predicted beyond it. Both are divided by the voxels of the box alone,
  which the reference decides: no false voxel improves Brier, wherever it lies. In ECE, what is too
  sure and what is too unsure make up for each other within a bin. With an empty reference there is
  no box: an invented structure counts as 1.
- **Slanted scans**, whose axes are not at right angles (a tilted gantry), have their volumes
  measured as they are; distances, areas of surface and the widening of lesions take the axes for
  upright.
- **Relative volume error** divides by the mean of both volumes. Divided by the reference's
  volume, it could exceed 1 for a structure that was found and never for one that was missed.
"""
PROTOCOL_HEADER = """\
## As papers measured

`--protocol` reproduces how a paper's own program measured, to compare with that paper's tables
and nothing else. It is never the default, its metrics have names of their own, and table and
`scores.json` say what is odd about them.
"""
CONFORMANCE_HEADER = """\
## Agreement with others

Over {num_pairs} random pairs of masks, in two and three dimensions and with several spacings, the
largest relative difference to a second implementation (sets of voxels, distance transforms and
plain loops, in `tests/conformance/metrics/`), to MONAI and to the package `surface-distance`,
where it means the same. MONAI computes in single precision. ({versions})
"""
DISAGREEMENT_HEADER = """\
## Where libraries disagree

The same masks, each library's own number. `surface-distance` weighs all distances by surface area
and means a mean of two means by ASSD; MedPy's HD95 is the percentile of both directions together;
MONAI's NSD counts voxels unless told otherwise.
"""
SPEED_HEADER = """\
## Speed

One pair of {labels} structures on {shape} voxels, a made-up abdomen with wavy outlines and
{strays} stray voxels; seconds of processor time on one thread of {processor} ({versions}).
MONAI's classes are called one by one, on one structure's masks of the whole scan after another,
which are made beforehand. Most of the difference is that Lamina crops to each structure first;
the last rows show MONAI with masks cropped for it.
"""


def main() -> None:
    """Render the page."""
    conformance, speed = (
        json.loads((DOCS / f"metric_{name}.json").read_text("utf-8"))
        for name in ("conformance", "speed")
    )
    (DOCS / "metrics.md").write_text(page(conformance, speed), "utf-8")


def page(conformance: dict[str, Any], speed: dict[str, Any]) -> str:
    """Return the page of two records."""
    parts = (_definitions(), _protocols(), _agreement(conformance), _disagreement(conformance))
    lines = [line for part in (*parts, _speed(speed)) for line in part]
    return "\n".join(lines) + "\n"


def _definitions() -> Iterable[str]:
    yield HEADER
    yield from _table([METRICS.get(name) for name in METRICS])
    yield ""
    yield CHOICES


def _protocols() -> Iterable[str]:
    yield PROTOCOL_HEADER
    for name in PROTOCOLS:
        protocol = PROTOCOLS.get(name)
        yield f"### `{name}`: {protocol.paper}\n\n{protocol.quirks}\n"
        yield from _table(protocol.metrics)
        yield ""


def _table(metrics: Iterable[Metric]) -> Iterable[str]:
    yield "| metric | unit | better | definition | missed | invented | left out |"
    yield "|---|---|---|---|---|---|---|"
    for metric in metrics:
        rule = metric.empty
        said = (rule.prediction_empty, rule.reference_empty, rule.both_empty)
        unit = metric.unit + (f", {metric.in_pixels.unit}" if _has_two_units(metric) else "")
        yield (
            f"| `{metric.name}` | {unit} | {BETTER[metric.higher_is_better]} "
            f"| {metric.definition} | {' | '.join(map(_outcome, said))} |"
        )


def _has_two_units(metric: Metric) -> bool:
    return metric.in_pixels is not None and metric.in_pixels.unit != metric.unit


def _outcome(outcome: Outcome) -> str:
    return outcome if isinstance(outcome, str) else f"{outcome:g}"


def _agreement(record: dict[str, Any]) -> Iterable[str]:
    others = ("restatement", "MONAI", "surface-distance")
    yield CONFORMANCE_HEADER.format(
        num_pairs=record["num_pairs"], versions=_versions(record["versions"])
    )
    yield f"| metric | {' | '.join(others)} |"
    yield f"|---{'|---' * len(others)}|"
    for name, found in record["largest_relative_difference"].items():
        cells = (_small(found[other]) if other in found else "–" for other in others)
        yield f"| `{name}` | {' | '.join(cells)} |"
    yield ""


def _small(share: float) -> str:
    return f"{share:.0e}" if share else "0"


def _disagreement(record: dict[str, Any]) -> Iterable[str]:
    names = ("dice", "hd", "hd95", "assd", "nsd")
    yield DISAGREEMENT_HEADER
    for case in record["disagreements"]:
        spacing = " × ".join(f"{size:g}" for size in case["spacing"])
        yield f"| {case['pair']}, {spacing} mm | {' | '.join(names)} |"
        yield f"|---{'|---' * len(names)}|"
        for library, values in case["values"].items():
            cells = (f"{values[name]:.3f}" if name in values else "–" for name in names)
            yield f"| {library} | {' | '.join(cells)} |"
        yield ""


def _speed(record: dict[str, Any]) -> Iterable[str]:
    yield SPEED_HEADER.format(
        labels=record["labels"],
        shape=" × ".join(map(str, record["shape"])),
        strays=record["stray_voxels"],
        processor=record["processor"],
        versions=_versions(record["versions"]),
    )
    yield from record["table"]


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


if __name__ == "__main__":
    main()
