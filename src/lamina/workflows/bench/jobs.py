"""What processes measure: run as ``python -m lamina.workflows.bench.jobs JOB SETTINGS``.

A job yields plain data after each of its steps, and goes on when a line comes in.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina.bundle import Bundle, load_bundle
from lamina.errors import LaminaError, first_line
from lamina.export.graphs import graphs_of, noise
from lamina.export.targets import TARGETS
from lamina.inference.memory import held, taken_by
from lamina.workflows.bench.forms import FORMS, PLAIN
from lamina.workflows.bench.peaks import peaks
from lamina.workflows.bench.scan import as_the_field_does, make_scan, segmented

Steps = Iterator[dict[str, Any]]
_MB = 1e6


def machine() -> Steps:
    """Measure what the machine can do, at each step."""
    while True:
        yield peaks()


def export(model: str, target: str, folder: str) -> Steps:
    """Export a model, without comparing it."""
    began = time.perf_counter()
    bundle = load_bundle(Path(model))
    chosen = TARGETS.get(target)
    for package in chosen.packages:
        __import__(package)
    out = Path(folder) / target
    out.mkdir()
    chosen.write(bundle, graphs_of(bundle), out)
    size = sum(path.stat().st_size for path in out.iterdir())
    yield {"export_s": time.perf_counter() - began, "megabytes": size / _MB}


def network(model: str, form: str, folder: str, threads: int) -> Steps:
    """Load a network in one of its forms and run it cold, then warm at each step."""
    bundle, file = load_bundle(Path(model)), Path(folder) / "plain.npy"
    image = _window(bundle)
    began = time.perf_counter()
    run = FORMS[form].load(bundle, Path(folder), threads)
    loaded, before = time.perf_counter(), held()
    logits: list[Any] = []
    grown = taken_by(lambda: logits.append(run(image)))
    cold: dict[str, Any] = {"load_s": loaded - began, "cold_s": time.perf_counter() - loaded}
    if form == PLAIN:
        np.save(file, logits[0])
    cold["peak_mb"] = (before + grown) / _MB
    yield cold | {
        "difference": _difference(logits.pop(), np.load(file)) if file.is_file() else None
    }
    while True:
        began = time.perf_counter()
        run(image)
        yield {"warm_s": time.perf_counter() - began}


def scan(out: str, shape: list[int]) -> Steps:
    """Write a made-up scan."""
    make_scan(Path(out), tuple(shape))
    yield {"megabytes": Path(out).stat().st_size / _MB}


def segment(model: str, image: str, out: str, way: str) -> Steps:
    """Segment a scan as ``lamina predict`` does or, where the way is ``"field"``, as is usual."""
    paths = Path(model), Path(image), Path(out)
    if way == "field":
        yield as_the_field_does(*paths)
    else:
        yield segmented(*paths, bfloat16=FORMS[way].precision == "bf16")


JOBS: dict[str, Callable[..., Steps]] = {
    job.__name__: job for job in (machine, export, network, scan, segment)
}


def main() -> None:
    """Do the job that the command line names."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no reply
    settings = json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    if sys.argv[1] != "network":
        del settings["threads"]
    steps = JOBS[sys.argv[1]](**settings)
    print("{}", file=replies, flush=True)  # ready
    while sys.stdin.readline():
        try:
            reply = next(steps)
        except ModuleNotFoundError as error:
            reply = {"error": f"{error.name} is not installed"}
        except (LaminaError, MemoryError, RuntimeError) as error:
            reply = {"error": first_line(error)}
        print(json.dumps(reply), file=replies, flush=True)


def _window(bundle: Bundle) -> Any:
    return noise(1, bundle.config.input_channels, bundle.plan.seen_roi_size).numpy()


def _difference(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
