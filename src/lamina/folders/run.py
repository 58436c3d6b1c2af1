"""The files of a run folder, which ``train`` writes and ``predict`` reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lamina.data.case import Case
from lamina.errors import DatasetError, TrainingError
from lamina.files import read_json, write_text

VIT_FILE = "vit.safetensors"
"""Name of a transformer in the folder of its pretraining, in work folders that have its maps, and
in those of runs that read them."""

BUNDLE = "model.lamina"
"""Name of the portable model in the folder of a run, or of all folds."""

OUT_OF_FOLD = "out_of_fold"
"""Folder of the segmentations and scores of all folds, in that of their runs."""

ALL = "all"
"""What a folder that holds a run of every fold says in place of its fold."""

Kind = Literal["run", "all_folds", "pretraining"]
_KINDS: dict[Kind, tuple[str, str]] = {
    "run": ("a run of one fold", "lamina train"),
    "all_folds": ("a run of every fold", "lamina train --fold all"),
    "pretraining": ("a pretraining", "lamina pretrain"),
}
"""What a folder may hold, and which verb wrote it."""


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
        return self.root / BUNDLE

    def fold(self, number: int) -> "RunFolder":
        """Return the run of one fold, in the folder of all."""
        return RunFolder(self.root / f"fold_{number}")

    @property
    def out_of_fold(self) -> Path:
        """What all folds say of the scans that they never saw."""
        return self.root / OUT_OF_FOLD

    def holds_other_files(self) -> bool:
        """Tell whether there is anything in the folder that a run would not leave there."""
        known = (self.config_file, self.history_file, self.checkpoints, self.bundle_file)
        ours = {"tensorboard", VIT_FILE, self.manifest_file.name, *(path.name for path in known)}
        found = self.root.iterdir() if self.root.is_dir() else ()
        return any(path.name not in ours and not path.name.startswith(".") for path in found)

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            TrainingError: The folder holds no run, or the file is none of ours.
        """
        if not self.manifest_file.is_file():
            raise TrainingError(
                f"{self.root}: holds no training run.", remedy="Give a folder that train wrote."
            )
        content = read_json(self.manifest_file)
        if not isinstance(content, dict):
            raise TrainingError(f"{self.manifest_file}: is not what train writes.")
        return content

    def kind(self) -> Kind:
        """Tell what the folder holds.

        Raises:
            TrainingError: It holds no run.
        """
        manifest = self.manifest()
        if "attention" in manifest:
            return "pretraining"
        return "all_folds" if manifest.get("fold") == ALL else "run"

    def check_kind(self, wanted: Kind) -> None:
        """Refuse a folder that holds anything else.

        Raises:
            TrainingError: It does, or holds no run.
        """
        found = self.kind()
        if found != wanted:
            (held, writer), (asked, other) = _KINDS[found], _KINDS[wanted]
            raise TrainingError(
                f"{self.root}: holds {held}, not {asked}.",
                remedy=f"Go on with it by {writer}, or give a folder that {other} wrote.",
            )

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


def append_epoch(run: RunFolder, numbers: Mapping[str, float]) -> None:
    """Add a line to a run's history; lines of epochs that a resumed run does again are dropped."""
    file = run.history_file
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    kept = [line for line in lines if json.loads(line)["epoch"] < numbers["epoch"]]
    write_text(file, "".join(f"{line}\n" for line in [*kept, json.dumps(dict(numbers))]))


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
