"""The portable model of a run: made from its best checkpoint, and found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.bundle import VIT, Bundle, save_bundle
from lamina.data.plan import Plan
from lamina.data.ranges import KEY
from lamina.errors import BundleError
from lamina.export.container import is_exported, read_exported
from lamina.export.targets import TARGETS
from lamina.folders.lineage import link_in
from lamina.folders.run import RunFolder, read_history
from lamina.folders.transformer import read_vit
from lamina.pretrained import quantised, shipped
from lamina.training.checkpoints import BEST, read_checkpoint


def write_bundle(run: RunFolder) -> Path:
    """Make the portable model from the best checkpoint of a run.

    Raises:
        TrainingError: There is no checkpoint yet.
    """
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
            **{key: manifest[key] for key in ("created", "software", "seed", "dataset", "hashes")},
            **({"start": link_in(manifest["start"])} if "start" in manifest else {}),
        },
    )
    save_bundle(bundle, run.bundle_file)
    return run.bundle_file


def find_bundle(path: Path) -> Path:
    """Return the bundle that a path means, made anew when its run has gone on since.

    Args:
        path: A file; a run folder; or, where there is neither, or another folder, the name of a
            shipped model.

    Raises:
        BundleError: The folder holds no model, or there is nothing of that name.
    """
    if not path.exists() and str(path) not in quantised():
        return _shipped(path)
    if not path.exists() or is_exported(path):
        exported = read_exported(path if path.exists() else quantised()[str(path)])
        way = TARGETS.get(exported.target).how_to_run.format(folder=path)
        raise BundleError(
            f"{path}: is an exported model.",
            remedy=f"Run it with {way}, or give the model it was made from.",
        )
    if not path.is_dir():
        return path
    run = RunFolder(path)
    best = run.checkpoints / BEST
    if best.is_file() and (
        not run.bundle_file.is_file() or run.bundle_file.stat().st_mtime < best.stat().st_mtime
    ):
        return write_bundle(run)
    if not run.bundle_file.is_file():
        if str(path) in shipped() and not run.manifest_file.is_file():
            return shipped()[str(path)]
        raise BundleError(
            f"{path}: holds neither a model nor a checkpoint.",
            remedy="Give a .lamina file, or a folder in which lamina train finished an epoch.",
        )
    return run.bundle_file


def _shipped(name: Path) -> Path:
    models = shipped()
    if str(name) in models:
        return models[str(name)]
    listed = f"; or one that comes with Lamina: {', '.join(models)}" if models else ""
    raise BundleError(
        f"{name}: no such file or folder.",
        remedy=f"Give the path of a .lamina file or of a run folder{listed}.",
    )


def _metrics(line: Mapping[str, Any]) -> dict[str, Any]:
    dice = {key.removeprefix("dice/"): line[key] for key in line if key.startswith("dice/")}
    return {"mean_dice": line["dice"], "dice": dice}
