"""Compare preparing scans, and bringing logits back, with MONAI and with nnU-Net's recipe.

Each method prepares each scan in a process of its own, so that peak memory is its alone, on one
thread, in turn with the others. Prints a Markdown table of medians and, with --out, keeps them as a
record for the documentation.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from preprocessing_methods import PREPARE, RESTORE
from preprocessing_scans import SHARED, TASKS, Task, make

REPEATS = 3
PACKAGES = ("numpy", "scipy", "torch", "monai", "nibabel")


def main() -> None:
    """Measure all methods on all scans, or be one of the processes that do it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scans", nargs="*", help=f"of {', '.join(TASKS)}; all by default")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, help="JSON file to write or to update")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        job, name, folder = arguments.child
        print(json.dumps(_work(job, TASKS[name], Path(folder))))
        return
    scans = {}
    for name in arguments.scans or TASKS:
        if not TASKS[name].shape and not SHARED.is_dir():
            print(f"{name}: is not here; left out.")
            continue
        scans[name] = _measure_scan(name, arguments.repeats)
        print("\n".join(_lines(scans[name])), flush=True)
        if arguments.out:
            _keep(arguments.out, scans)


def _measure_scan(name: str, repeats: int) -> dict[str, Any]:
    jobs = [*PREPARE, *(RESTORE if TASKS[name].scheme == "ct" else {})]
    taken: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
    with tempfile.TemporaryDirectory() as scratch:
        _in_a_child("make", name, scratch)
        for _ in range(repeats):
            for job in jobs:
                taken[job].append(_in_a_child(job, name, scratch))
    rows = {
        job: {
            "cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 4),
            "range_s": [round(end(run["cpu_s"] for run in runs), 4) for end in (min, max)],
            "wall_s": round(statistics.median(run["wall_s"] for run in runs), 4),
            "memory_mb": round(statistics.median(run["memory_mb"] for run in runs)),
            "size": runs[0]["size"],
        }
        for job, runs in taken.items()
    }
    return {"title": TASKS[name].title, "repeats": repeats, "jobs": rows}


def _in_a_child(job: str, name: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", job, name, folder]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | threads)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if result:
        print(f"{name} {job}: {result['cpu_s']:.3f} s", file=sys.stderr, flush=True)
    return result


def _work(job: str, task: Task, folder: Path) -> dict[str, Any]:
    """Do one job; return seconds, MB added to the peak of a process that did it for a tiny scan."""
    if job == "make":
        make(task, folder)
        return {}
    run = (PREPARE | RESTORE)[job]
    with tempfile.TemporaryDirectory() as scratch:  # first use loads modules and fills caches
        spacing = tuple(0.8 * mm if len(task.target) == 3 else mm for mm in task.target)
        tiny = replace(task, shape=(16,) * len(spacing), spacing=spacing)
        make(tiny, Path(scratch))
        run(tiny, Path(scratch))()
    ready = run(task, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu_began = time.perf_counter(), time.process_time()
    size = ready()
    return {
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu_began,
        "memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "size": size,
    }


def _lines(scan: dict[str, Any]) -> Iterator[str]:
    yield f"\n{scan['title']}\n\n| job | CPU (s) | memory (MB) | size |\n|---|---|---|---|"
    for job, row in scan["jobs"].items():
        yield f"| {job} | {row['cpu_s']:.3f} | {row['memory_mb']} | {row['size']} |"


def _keep(out: Path, scans: dict[str, Any]) -> None:
    from lamina.workflows.bench.record import processor

    known = json.loads(out.read_text("utf-8"))["scans"] if out.is_file() else {}
    record = {
        "machine": platform.machine(),
        "processor": processor(),
        "threads": 1,
        "packages": {name: version(name) for name in PACKAGES},
        "scans": {name: scan for name in TASKS if (scan := (known | scans).get(name))},
    }
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
