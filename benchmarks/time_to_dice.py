"""Find the shortest schedule with which networks reach a validation Dice, one after the other.

Each network is trained again and again, from the shortest time budget up, until a finished run
reaches --target: all see the same patches in the same order, and each may use up its schedule.
Prints a Markdown table and, with --out, keeps a record for the documentation.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lamina.workflows.plan import read_plan
from lamina.workflows.steps.provenance import machine, software

_NNUNET = {
    "model_options.channels": [32, 64, 128, 256],
    "patch_size": [40, 56, 40],
    "batch_size": 9,
    "optimiser.kind": "sgd",
    "optimiser.lr": 0.01,
    "optimiser.momentum": 0.99,
    "optimiser.nesterov": True,
    "optimiser.weight_decay": 3e-5,
    "optimiser.schedule": "polynomial",
    "optimiser.warmup": 0.0,
    "optimiser.max_grad_norm": 12.0,
    "optimiser.ema_decay": 0.0,
    "oversample_foreground": 0.33,
}
"""What nnU-Net v2 plans for the hippocampus (Isensee et al., Nature Methods, 2021)."""
_WITHOUT_PAUSE = 1_000_000
"""More steps than any run has: validated once, at the end."""


def main() -> None:
    """Train every network, and print how they compare with the first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, help="folder that prepare wrote")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["lightmedseg", "dynunet", "dynunet:nnunet", "lgmsnet_3d"],
        help="presets; NAME:nnunet trains as nnU-Net does",
    )
    parser.add_argument("--target", type=float, default=0.85, help="mean foreground Dice")
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[40, 60, 90, 135, 200, 300, 450, 675, 1000]
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    print("| network | patches/s | budget (s) | steps | Dice | against the first |")
    print("|---|---|---|---|---|---|")
    rows: dict[str, Any] = {}
    for model in arguments.models:
        rows[model] = _climbed(arguments, model)
        print(_line(model, rows), flush=True)
        if arguments.out:
            record = {
                "target": arguments.target,
                "machine": machine(),
                "software": software(),
                "rows": rows,
            }
            arguments.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _climbed(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    """Train with one budget after the other, until one suffices; return all runs."""
    runs: list[dict[str, Any]] = []
    for budget in arguments.budgets:
        runs.append(_trained(arguments, model, budget))
        print(f"{model}: {runs[-1]}", file=sys.stderr, flush=True)
        if runs[-1]["dice"] >= arguments.target:
            break
    return {"reached": runs[-1]["dice"] >= arguments.target, **runs[-1], "runs": runs}


def _trained(arguments: argparse.Namespace, model: str, budget: int) -> dict[str, Any]:
    """Train for so many seconds; return what the run came to."""
    name, _, how = model.partition(":")
    settings = {"steps_per_epoch": _WITHOUT_PAUSE, **(_NNUNET if how == "nnunet" else {})}
    with TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        training = [sys.executable, "-m", "lamina", "train", arguments.work, "--out", run]
        training += ["--model", name, "--time-budget", f"{budget}s", "--device", "cpu", "--quiet"]
        for setting, value in settings.items():
            training += ["--set", f"{setting}={json.dumps(value)}"]
        subprocess.run(list(map(str, training)), check=True)
        lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    last, best = history[-1], max(history, key=lambda line: line["dice"])
    batch = settings.get("batch_size", read_plan(arguments.work).plan.batch_size)
    return {
        "budget": budget,
        "seconds": last["elapsed_s"],
        "steps": last["step"],
        "dice": best["dice"],
        "patches_per_s": last["step"] * batch / last["elapsed_s"],
    }


def _line(model: str, rows: dict[str, Any]) -> str:
    row, first = rows[model], next(iter(rows.values()))
    more = "" if row["reached"] else "> "
    return (
        f"| {model} | {row['patches_per_s']:.1f} | {more}{row['budget']} | {row['steps']} "
        f"| {row['dice']:.3f} | {more}{row['budget'] / first['budget']:.1f} |"
    )


if __name__ == "__main__":
    main()
