"""Write the page on the cost of preprocessing from its record.

    python benchmarks/preprocessing.py --out docs/preprocessing.json
    python tools/preprocessing.py

The first measures time and memory, the second renders ``docs/preprocessing.md``.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
NAMES = {
    "lamina": "Lamina",
    "monai_linear": "MONAI (linear)",
    "monai_cubic": "MONAI (cubic)",
    "nnunet_style": "nnU-Net's way",
    "restore_lamina": "Lamina",
    "restore_monai": "MONAI",
    "restore_nnunet_style": "nnU-Net's way",
}
HEADER = """\
# Preprocessing

What it costs to bring a scan and its label from their files to the arrays that training reads:
read, turn to RAS, resample, normalise, write float32 and uint8 as `.npy`. Each run has a process of
its own and methods take turns, on one thread of {processor} ({packages}).
Times are medians, with the range, of processor seconds, because others were at work on the machine;
memory is what the job adds to the peak of a process that did it for a tiny scan. The hippocampus
is a real scan, the others are made up. The methods do not give the same arrays:

- **Lamina** crops to what is not background, smooths before it makes voxels larger, resamples by
  cubic splines, gives each voxel the class with the largest share, checks the files, and draws the
  positions that patches are centred on.
- **MONAI** (`Spacingd`, defaults) interpolates images linearly or by cubic splines and takes the
  nearest label, without smoothing; it crops at the end, CT after clipping.
- **nnU-Net's way** is written anew from its description, not its program: crop to what is not zero,
  cubic splines, labels by linear interpolation of each class; where spacing is anisotropic, within
  slices only, with the nearest slice.
"""
RESTORE = """\
### From logits back to the scan

Logits of 15 classes on the prepared grid become class indices on the scan's own grid. Lamina
decides block by block; MONAI (`SpatialResample`, float32) and nnU-Net's way first hold all logits
at full size. The logits themselves, which all of them are given, are not counted.
"""


def main() -> None:
    """Render the page."""
    record = json.loads((DOCS / "preprocessing.json").read_text("utf-8"))
    (DOCS / "preprocessing.md").write_text(page(record), "utf-8")


def page(record: dict[str, Any]) -> str:
    """Return the page of a record."""
    packages = ", ".join(f"{name} {number}" for name, number in record["packages"].items())
    lines = [HEADER.format(**record | {"packages": packages})]
    for scan in record["scans"].values():
        jobs = scan["jobs"]
        restored = {job: row for job, row in jobs.items() if job.startswith("restore")}
        prepared = {job: row for job, row in jobs.items() if job not in restored}
        title = f"## {scan['title']}\n\nMedians of {scan['repeats']} runs.\n"
        lines += [title, *_table(prepared)]
        if restored:
            lines += [RESTORE, *_table(restored)]
    return "\n".join(lines)


def _table(rows: dict[str, Any]) -> Iterable[str]:
    yield "| method | time (s) | range (s) | memory (MB) | result |"
    yield "|---|---|---|---|---|"
    for job, row in rows.items():
        low, high = map(_seconds, row["range_s"])
        size = "×".join(map(str, row["size"]))
        time = _seconds(row["cpu_s"])
        yield f"| {NAMES[job]} | {time} | {low} to {high} | {row['memory_mb']:,} | {size} |"
    yield f"\n{_verdict(rows)}\n"


def _verdict(rows: dict[str, Any]) -> str:
    ours, *others = rows
    words = []
    for key, better in (("cpu_s", "Faster"), ("memory_mb", "Smaller")):
        ahead = [NAMES[job] for job in others if rows[job][key] < rows[ours][key]]
        words.append(f"{better} than Lamina: {' and '.join(ahead) or 'none'}.")
    return " ".join(words)


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


if __name__ == "__main__":
    main()
