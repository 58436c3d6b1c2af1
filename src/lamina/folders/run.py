"""The files of a run folder, which ``train`` writes and ``predict`` reads."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from lamina.bundle import VIT, Bundle, save_bundle
from lamina.data.case import Case
from lamina.data.plan import Plan
from lamina.data.ranges import KEY
from lamina.data.workers import num_cores
from lamina.errors import DatasetError, TrainingError
from lamina.files import read_json
from lamina.folders.transformer import VIT_FILE, read_vit

ALL = "all"
"""What a folder that holds a run of every fold says in place of its fold."""

_PACKAGES = ("lamina", "torch", "lightning", "monai", "numpy", "scipy", "nibabel", "SimpleITK")


@dataclass(frozen=True)
class RunFolder:
    """One training run on disk."""

    root: Path

    @property
    def config_file(self) -> Path:
        """Resolved settings."""
        return self.root / "config.yaml"

    @property
    def manifest_file(self) -> Path:
        """What the run was made from: versions, machine, seed, hashes, plan, network, cases."""
        return self.root / "manifest.json"

    @property
    def history_file(self) -> Path:
        """One JSON object per epoch."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """``last.ckpt`` and ``best.ckpt``."""
        return self.root / "checkpoints"

    @property
    def bundle_file(self) -> Path:
        """The portable model."""
        return self.root / "model.lamina"

    def holds_other_files(self) -> bool:
        """Tell whether there is anything in the folder that a run would not leave there."""
        known = (self.config_file, self.history_file, self.checkpoints, self.bundle_file)
        ours = {"tensorboard", VIT_FILE, self.manifest_file.name, *(path.name for path in known)}
        found = self.root.iterdir() if self.root.is_dir() else ()
        return any(path.name not in ours and not path.name.startswith(".") for path in found)

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            TrainingError: The folder holds no run.
        """
        if not self.manifest_file.is_file():
            raise TrainingError(
                f"{self.root}: holds no training run.", remedy="Give a folder that train wrote."
            )
        content: dict[str, Any] = read_json(self.manifest_file)
        return content

    def cases(self, side: str) -> tuple[Case, ...]:
        """Return the cases that this run was validated on, or those that are kept for the end.

        Args:
            side: ``"val"`` or ``"test"``.

        Raises:
            TrainingError: The folder holds no run.
            DatasetError: There are no such cases.
        """
        found = tuple(Case.from_dict(case) for case in self.manifest().get(f"{side}_cases", ()))
        if not found:
            raise DatasetError(
                f"{self.root}: no cases were kept for --split {side}.",
                remedy="Prepare the dataset with --protocol, or with a split that has some.",
            )
        return found


def software() -> dict[str, str]:
    """Return the versions of everything that decides a result."""
    found = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def machine() -> dict[str, Any]:
    """Return what a run's speed depends on."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": num_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_bundle(run: RunFolder) -> Path:
    """Make the portable model from the best checkpoint of a run.

    Raises:
        TrainingError: There is no checkpoint yet.
    """
    from lamina.training.checkpoints import BEST, read_checkpoint

    manifest = run.manifest()
    checkpoint = read_checkpoint(run.checkpoints / BEST)
    state = checkpoint["state_dict"]
    prefix = "average.module." if "average.n_averaged" in state else "network."
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    if "attention" in manifest["network"]:
        carried = read_vit(run.root).vit.state_dict()
        weights |= {f"{VIT}{name}": tensor for name, tensor in carried.items()}
    history = [
        line for line in read_history(run) if line["epoch"] == checkpoint["run"]["best_epoch"]
    ]
    bundle = Bundle(
        network=manifest["network"],
        weights=weights,
        plan=Plan.from_dict(manifest["plan"]),
        training={
            "config": manifest["config"],
            "fold": manifest["fold"],
            "num_training_cases": manifest["num_training_cases"],
            "num_validation_cases": len(manifest["val_cases"]),
            "epochs": checkpoint["run"]["epochs_done"],
            "steps": int(state["steps_done"]),
            "seconds": round(checkpoint["run"]["elapsed_s"]),
            **({KEY: manifest[KEY]} if KEY in manifest else {}),
        },
        metrics=_metrics(history[-1]) if history else {},
        provenance={
            key: manifest[key] for key in ("created", "software", "seed", "dataset", "hashes")
        },
    )
    save_bundle(bundle, run.bundle_file)
    return run.bundle_file


def read_history(run: RunFolder, score: str = "dice") -> list[dict[str, Any]]:
    """Return the finished epochs of a run, oldest first.

    Args:
        run: The run; one without the file has finished none.
        score: What every line tells beside its epoch, step and time.

    Raises:
        TrainingError: A line is not a record of an epoch.
    """
    try:
        text = run.history_file.read_text("utf-8") if run.history_file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        fault = type(error).__name__
        raise TrainingError(f"{run.history_file}: cannot be read ({fault}).") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = json.loads(line)
            lines.append(record | {key: float(record[key]) for key in (score, "elapsed_s")})
            lines[-1] |= {key: int(record[key]) for key in ("epoch", "step")}
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{run.history_file}: line {number} is no record of an epoch.",
                remedy="Remove the line.",
            ) from error
    return lines


def _metrics(line: Mapping[str, Any]) -> dict[str, Any]:
    dice = {key.removeprefix("dice/"): line[key] for key in line if key.startswith("dice/")}
    return {"mean_dice": line["dice"], "dice": dice}
