"""Train every recipe, and the plan's own settings, for one epoch on real scans.

Shows that each paper's settings run on data of the kind they were written for, what steps and a
validation cost, and which share of the time training waits for data. Prints a line of JSON for each
and, with --out, keeps a record, of which tools/sections.py makes the table. What was prepared and
trained stays in --scratch, and is not done again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lamina.workflows.steps.provenance import machine, software

NEAREST = {
    "lgmsnet-kvasir": "kvasir_seg_256",
    "lgmsnet-busi": "busi_breast_us",
    "lgmsnet-tnscui": "hc18_ultrasound",
    "lgmsnet-isic": "isic2017_dermoscopy",
    "dainet-acdc": "acdc",
    "lightmedseg-acdc": "acdc",
    "dainet-synapse": "ct_multiorgan",
    "lgmsnet-btcv": "ct_multiorgan",
    "lgmsnet-kits": "ct_multiorgan",
    "glims-btcv": "ct_multiorgan",
    "mpunet-lits": "ct_multiorgan",
    "lightmedseg-brats": "ms_multimodal",
    "glims-brats": "ms_multimodal",
}
"""Each recipe and the set nearest to the one that it was written for."""
_SPARING = "activation_checkpointing=true"
ADDED = {
    "glims-brats": ("loss=dice_ce", "loss_options={}", "grad_accum_steps=2", _SPARING),
    "glims-btcv": ("grad_accum_steps=2", _SPARING),
    "mpunet-lits": ("patch_size=[128,128,48]", "roi_size=[128,128,48]", _SPARING),
}
"""What else is set: less memory for the largest networks, and a loss for scans without regions."""
PLANNED_FOR = {
    "dainet-acdc": "dainet",
    "dainet-synapse": "dainet",
    "lightmedseg-acdc": "lightmedseg",
}
"""Recipes that need scans planned for their own network: with attention maps, or in volumes."""
ALL_SETS = (*dict.fromkeys(NEAREST.values()), "hippocampus", "sts_multimodal", "misc_3d")


def main() -> None:
    """Train them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of an epoch; as the recipe has it by default")
    parser.add_argument("--only", nargs="+", help="recipes, or auto")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    tried = [*NEAREST.items(), *(("auto", name) for name in ALL_SETS)]
    rows = []
    for recipe, name in tried:
        if arguments.only and recipe not in arguments.only:
            continue
        rows.append(one_epoch(arguments, recipe, name))
        print(json.dumps(rows[-1]), flush=True)
        if arguments.out:
            record = {"machine": machine(), "software": software(), "rows": rows}
            arguments.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def one_epoch(arguments: argparse.Namespace, recipe: str, name: str) -> dict[str, Any]:
    """Prepare a set where that was not done, train an epoch, and tell what it came to."""
    network = PLANNED_FOR.get(recipe)
    work = arguments.scratch / (f"W_{name}_{network}" if network else f"W_{name}")
    run = arguments.scratch / f"{recipe}_{name}"
    row: dict[str, Any] = {"recipe": recipe, "dataset": name}
    try:
        if not (work / "plan.json").exists():
            prepare(arguments.data / name, work, *(("--model", network) if network else ()))
        if network == "dainet":
            add_attention_maps(arguments.scratch, work)
        if not (run / "model.lamina").exists():
            steps = arguments.steps
            length = ("passes_per_epoch=null", f"steps_per_epoch={steps}") if steps else ()
            all_set = (*length, "overlap=0.0", *ADDED.get(recipe, ()))
            settings = [word for one in all_set for word in ("--set", one)]
            lamina("train", work, "--recipe", recipe, "--epochs", 1, "--out", run, *settings)
    except subprocess.CalledProcessError as error:
        return row | {"failed": error.stderr.strip() or str(error)}
    kept = ("step", "elapsed_s", "loss", "waiting", "dice", "skipped_steps")
    last = json.loads((run / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    return row | {key: last[key] for key in kept}


def prepare(scans: Path, work: Path, *how: str) -> None:
    """Prepare all scans that can be, of sets that have others, too.

    Raises:
        subprocess.CalledProcessError: There are none.
    """
    try:
        lamina("prepare", scans, "--out", work, "--no-rehearse", *how)
    except subprocess.CalledProcessError:
        if not (work / "plan.json").exists():
            raise


def add_attention_maps(scratch: Path, work: Path) -> None:
    """Pretrain a small transformer for a minute and draw its maps, where a set has none."""
    vit = scratch / f"vit_{work.name}"
    if not vit.exists():
        lamina("pretrain", work, "--small", "--time-budget", "60s", "--out", vit)
        lamina("attention-maps", work, "--vit", vit)


def lamina(*words: object) -> None:
    """Run a command of Lamina's.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    command = [sys.executable, "-m", "lamina", *map(str, words), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    main()
