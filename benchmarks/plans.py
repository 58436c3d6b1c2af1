"""Hold what plans predict against what training then takes: seconds an epoch and peak memory.

Each network is planned for with ``lamina plan`` and trained for one epoch with ``lamina train``, in
processes of their own. Prints a Markdown table; the prepared folders are copied, not changed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def main() -> None:
    """Plan and train every network on every folder that takes it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, nargs="+", help="folders that prepare wrote")
    parser.add_argument("--models", nargs="+", default=["lightmedseg"], help="presets")
    parser.add_argument("--ram", default="8G", help="memory granted")
    parser.add_argument("--steps", type=int, default=60, help="length of the epoch")
    arguments = parser.parse_args()
    print(
        "| data | network | patch, batch | epoch predicted (s) | measured | memory predicted (GB)"
        " | measured |"
    )
    print("|---|---|---|---|---|---|---|")
    for work in arguments.work:
        for model in arguments.models:
            with TemporaryDirectory() as scratch:
                copy = Path(scratch) / "work"
                shutil.copytree(work, copy)
                print(_row(copy, work.name, model, arguments), flush=True)


def _row(work: Path, name: str, model: str, arguments: argparse.Namespace) -> str:
    planning = ["plan", work, "--model", model, "--ram", arguments.ram, "--device", "cpu"]
    plan = json.loads(_lamina(*planning, "--json")[0])["plan"]
    run = work.parent / "run"
    steps = f"steps_per_epoch={arguments.steps}"
    peak = _lamina("train", work, "--epochs", 1, "--set", steps, "--out", run, "-q")[1]
    epoch = json.loads((run / "metrics.jsonl").read_text("utf-8").splitlines()[0])
    takes = plan["estimates"]
    validation = takes["epoch_s"] - takes["step_s"] * plan["steps_per_epoch"]
    predicted = takes["step_s"] * arguments.steps + validation
    patch = "x".join(map(str, plan["patch_size"]))
    return (
        f"| {name} | {model} | {patch}, {plan['batch_size']} | {predicted:.1f} "
        f"| {epoch['elapsed_s']:.1f} ({epoch['elapsed_s'] / predicted - 1:+.0%}) "
        f"| {takes['training_memory_gb']:.2f} "
        f"| {peak:.2f} ({peak / takes['training_memory_gb'] - 1:+.0%}) |"
    )


def _lamina(*arguments: Any) -> tuple[str, float]:
    """Return what a command prints and its peak memory in GB."""
    command = [sys.executable, "-m", "lamina", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: failed")
    return printed, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
