"""Time a prediction and a training step of networks, and the memory that they take.

Each network runs in a process of its own, so that peak memory is its alone. Prints a Markdown table
of medians and, with --out, keeps them as a record for the documentation.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = {2: (256, 256), 3: (64, 64, 64)}
REPEATS = 3
CHANNELS, CLASSES = 1, 2


def main() -> None:
    """Measure networks one after the other, or in a child process just one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="presets; all by default")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, help="JSON file to write or to update")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.names[0], arguments.threads)))
        return
    from lamina.models import NETWORKS

    print("| network | image | prediction (s) | training step (s) | training memory (MB) |")
    print("|---|---|---|---|---|")
    rows = {}
    for name in arguments.names or NETWORKS:
        rows[name] = row = _in_a_child(name, arguments.threads)
        image = "x".join(map(str, row["size"]))
        figures = f"{row['predict_s']:.3f} | {row['step_s']:.3f} | {row['memory_mb']:.0f}"
        print(f"| {name} | {image} | {figures} |", flush=True)
        if arguments.out:
            _keep(arguments.out, rows)


def measure(name: str, threads: int | None) -> dict[str, Any]:
    """Return medians of one network on one image, and what training adds to peak memory."""
    import torch

    from lamina.losses import build_loss
    from lamina.losses.deep_supervision import DeepSupervision
    from lamina.models import configure

    if threads:
        torch.set_num_threads(threads)
    config = configure(name, in_channels=CHANNELS, num_classes=CLASSES)
    size = SIZES[config.spatial_dims]
    layout = torch.channels_last if config.spatial_dims == 2 else torch.channels_last_3d
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = config.build().to(memory_format=layout)
    image = torch.randn(1, config.input_channels, *size).contiguous(memory_format=layout)
    target = torch.randint(0, CLASSES, (1, *size), dtype=torch.uint8)
    loss = DeepSupervision(build_loss("dice_ce"))

    def step() -> None:
        loss(network.train()(image), target).backward()
        network.zero_grad()

    def predict() -> None:
        with torch.inference_mode():
            network.eval()(image)

    return {
        "size": size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "predict_s": round(_median(predict), 4),
        "step_s": round(_median(step), 4),
        "memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
    }


def _median(job: Callable[[], None]) -> float:
    taken = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        job()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])  # the first warms caches


def _in_a_child(name: str, threads: int | None) -> dict[str, Any]:
    command = [sys.executable, __file__, name, "--child"]
    if threads:
        command += ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def _keep(out: Path, rows: dict[str, Any]) -> None:
    from lamina.workflows.bench.record import processor

    known = json.loads(out.read_text("utf-8")) if out.is_file() else {"rows": {}}
    record = {
        "machine": platform.machine(),
        "processor": processor(),
        "repeats": REPEATS,
        "rows": dict(sorted((known["rows"] | rows).items())),
    }
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
