"""Time networks as their papers define them and in their fast forms, in turn, in one process.

Prints a Markdown table of medians, with the share of operators on request, and with --out keeps
them as JSON. Other work on the machine lengthens the wall time; processor time, divided by the
threads, is given beside it.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits spends no processor time

import torch
from torch import Tensor, nn
from torch.profiler import profile

from lamina.models import configure, input_channels
from lamina.models.accelerate import for_inference, has_bfloat16, keep_freed_memory

CASES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "glims": (4, 3, (96, 96, 96)),
    "lightmedseg": (4, 4, (128, 128, 128)),
    "lgmsnet_2d": (3, 1, (256, 256)),
    "lgmsnet_3d": (1, 14, (96, 96, 96)),
    "dainet": (1, 4, (224, 224)),
    "mpunet": (1, 2, (48, 256, 256)),
    "swin_unetr": (4, 3, (96, 96, 96)),
    "dynunet": (4, 3, (96, 96, 96)),
}
"""Channels, classes and size of the image, as published; the last two are GLIMS' rivals."""
PLAIN_ONLY = ("swin_unetr", "dynunet")
SHOWN = 12  # operators per network


def main() -> None:
    """Measure the networks named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="presets; all of the table by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="list the costliest operators")
    parser.add_argument("--out", type=Path, help="JSON file to write or to update")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| network | form | wall (s) | processor (s) | faster | difference |")
    print("|---|---|---|---|---|---|")
    for name in arguments.names or CASES:
        rows = measure(name, arguments.repeats, profiled=arguments.profile)
        for form, row in rows.items():
            figures = f"{row['wall_s']:.3f} | {row['processor_s']:.3f} | {row['faster']:.2f}"
            print(f"| {name} | {form} | {figures} | {row['difference']:.1e} |", flush=True)
        for form, row in rows.items():
            for line in row.get("operators", []):
                print(f"    {form}: {line}")
        if arguments.out:
            _keep(arguments.out, name, rows, arguments.threads)


@torch.inference_mode()
def measure(name: str, repeats: int, *, profiled: bool) -> dict[str, dict[str, Any]]:
    """Return a row for each form of one network, all on the same noise."""
    in_channels, num_classes, size = CASES[name]
    torch.manual_seed(0)
    config = configure(name, in_channels=in_channels, num_classes=num_classes)
    network, image = config.build().eval(), torch.randn(1, input_channels(config), *size)
    forms: dict[str, nn.Module] = {"plain": network}
    if name not in PLAIN_ONLY:
        forms["fast"] = for_inference(network)
        if has_bfloat16():
            forms["fast, bfloat16"] = for_inference(network, bfloat16=True)
    expected = network(image)
    taken: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    rows: dict[str, dict[str, Any]] = {}
    for form, fast in forms.items():
        found = _as_used(form, fast, image)()
        rows[form] = {"difference": float((found - expected).abs().max() / expected.abs().max())}
    for _ in range(repeats):
        for form, fast in forms.items():
            taken[form].append(_timed(_as_used(form, fast, image)))
    for form, fast in forms.items():
        wall, processor = (statistics.median(each) for each in zip(*taken[form], strict=True))
        rows[form] |= {"wall_s": wall, "processor_s": processor}
        rows[form]["faster"] = rows["plain"]["processor_s"] / processor
        rows[form]["wall_min_s"] = min(each for each, _ in taken[form])
        if profiled:
            rows[form]["operators"] = _operators(_as_used(form, fast, image))
    return rows


def _as_used(form: str, network: nn.Module, image: Tensor) -> Callable[[], Tensor]:
    def predict() -> Tensor:
        keep_freed_memory(keep=form != "plain")
        logits: Tensor = network(image)
        return logits

    return predict


def _timed(job: Callable[[], Tensor]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    job()
    used = (time.process_time() - processor) / torch.get_num_threads()
    return time.perf_counter() - wall, used


def _operators(job: Callable[[], Tensor]) -> list[str]:
    with profile() as record:
        job()
    events = sorted(record.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        f"{event.self_cpu_time_total / total:5.1%} {event.count:5d} x {event.key}"
        for event in events[:SHOWN]
    ]


def _keep(out: Path, name: str, rows: dict[str, Any], threads: int) -> None:
    record = json.loads(out.read_text("utf-8")) if out.is_file() else {"rows": {}}
    record |= {"machine": platform.machine(), "threads": threads, "torch": torch.__version__}
    record["rows"][name] = rows
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
