"""Checkpoints: whole or absent, and nothing but tensors and plain values in them."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lamina.errors import TrainingError
from lamina.files import atomic_path

LAST = "last.ckpt"
BEST = "best.ckpt"


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
            torch.save(checkpoint, part)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        TrainingError: It is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise TrainingError(
            f"{path}: no checkpoint to resume from.", remedy="Train without --resume."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{path}: damaged or not a checkpoint of Lamina ({type(error).__name__}).",
            remedy="Remove it; best.ckpt may still be intact.",
        ) from error
    if not isinstance(content, dict) or "run" not in content:
        raise TrainingError(f"{path}: not a checkpoint of Lamina.")
    return content
