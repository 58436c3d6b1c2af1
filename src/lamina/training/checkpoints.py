"""Checkpoints: whole or absent, and nothing but tensors and plain values in them."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lamina.errors import TrainingError
from lamina.files import atomic_path

LAST = "last.ckpt"
BEST = "best.ckpt"

_SECTIONS = {"run", "state_dict", "optimizer_states"}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and moves into place: a kill leaves the earlier file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            FileError: The disk is full or the folder cannot be written; the earlier file is intact.
        """
        with atomic_path(Path(path)) as part:
            try:
                torch.save(checkpoint, part)
            except RuntimeError as error:  # what torch makes of a write that failed
                raise OSError("the file system took only part of it") from error


def latest(folder: Path) -> Path | None:
    """Return the checkpoint to resume from: the last, or the best where that is gone.

    A run that was killed before it had one has none.
    """
    return next((path for name in (LAST, BEST) if (path := folder / name).is_file()), None)


def read_latest(folder: Path) -> dict[str, Any] | None:
    """Read the checkpoint to resume from.

    Returns:
        The checkpoint, or ``None`` for a run that was killed before it had one.

    Raises:
        TrainingError: It is damaged.
    """
    path = latest(folder)
    return read_checkpoint(path) if path else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        TrainingError: It is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise TrainingError(
            f"{path}: there is no checkpoint yet.", remedy="Let training finish an epoch first."
        )
    try:
        with ZipFile(path):  # anything else than a zip would be an old pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: depends on the byte that the reader stumbles over
        raise TrainingError(
            f"{path}: damaged or not a checkpoint of Lamina ({type(error).__name__}).",
            remedy="Remove it; --resume then goes on from best.ckpt.",
        ) from error
    if not isinstance(content, dict) or not content.keys() >= _SECTIONS:
        raise TrainingError(f"{path}: not a checkpoint of Lamina.")
    return content
