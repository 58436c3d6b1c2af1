"""Train networks one after the other until each reaches a validation Dice, and time how long.

All see the same patches in the same order under the same schedule, which ends with --budget; a
network that reaches --target is stopped there. Prints a Markdown table and, with --out, keeps a
record for the documentation.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lamina.workflows.plan import read_plan
from lamina.workflows.run import machine, software

POLL_S = 1.0


def main() -> None:
    """Train every network, and print how they compare with the first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, help="folder that prepare wrote")
    parser.add_argument("--models", nargs="+", default=["lightmedseg", "dynunet", "lgmsnet_3d"])
    parser.add_argument("--target", type=float, default=0.85, help="mean foreground Dice")
    parser.add_argument("--budget", default="40m", help="length of each schedule")
    parser.add_argument("--steps", type=int, default=100, help="between two validations")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    plan = read_plan(arguments.work).plan
    print("| network | patches/s | steps | Dice | time to it (s) | against the first |")
    print("|---|---|---|---|---|---|")
    rows: dict[str, Any] = {}
    for model in arguments.models:
        rows[model] = _trained(arguments, model, plan.batch_size)
        print(_line(model, rows, arguments.target), flush=True)
        if arguments.out:
            record = {
                "target": arguments.target,
                "budget": arguments.budget,
                "patch_size": plan.patch_size,
                "batch_size": plan.batch_size,
                "machine": machine(),
                "software": software(),
                "rows": rows,
            }
            arguments.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _trained(arguments: argparse.Namespace, model: str, batch_size: int) -> dict[str, Any]:
    """Train until the target or the end of the schedule; return the history's last line."""
    with TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        training = [sys.executable, "-m", "lamina", "train", arguments.work, "--out", run]
        training += ["--model", model, "--time-budget", arguments.budget, "--quiet"]
        training += ["--set", f"steps_per_epoch={arguments.steps}"]
        with subprocess.Popen(list(map(str, training))) as process:
            while process.poll() is None:
                time.sleep(POLL_S)
                if any(line["dice"] >= arguments.target for line in _history(run)):
                    (run / "stop").touch()
        if process.returncode:
            sys.exit(f"{model}: training failed")
        history = _history(run)
    reached = [line for line in history if line["dice"] >= arguments.target]
    line = reached[0] if reached else max(history, key=lambda each: each["dice"])
    return {
        "reached": bool(reached),
        "dice": line["dice"],
        "steps": line["step"],
        "seconds": line["elapsed_s"] if reached else history[-1]["elapsed_s"],
        "patches_per_s": line["step"] * batch_size / line["elapsed_s"],
        "history": [{name: h[name] for name in ("step", "elapsed_s", "dice")} for h in history],
    }


def _history(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    if not file.is_file():
        return []
    return [
        json.loads(line)
        for line in file.read_text("utf-8").splitlines(keepends=True)
        if line.endswith("\n")
    ]


def _line(model: str, rows: dict[str, Any], target: float) -> str:
    row, first = rows[model], next(iter(rows.values()))
    more = "" if row["reached"] else "> "
    return (
        f"| {model} | {row['patches_per_s']:.1f} | {row['steps']} | {row['dice']:.3f} "
        f"| {more}{row['seconds']:.0f} | {more}{row['seconds'] / first['seconds']:.1f} |"
    )


if __name__ == "__main__":
    main()
