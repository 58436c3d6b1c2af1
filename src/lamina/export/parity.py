"""How far an exported network is from the original, on windows and on whole segmentations."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.export.targets import Network

Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class WindowParity:
    """Logits of an exported network against the original's, over some windows."""

    windows: int
    max_abs_error: float
    """Largest difference of any logit; NaN where one of them is."""
    max_abs_logit: float
    """Largest magnitude of the original's logits."""
    agreement: float
    """Share of voxels that both give to the same class, or to the same regions."""

    @property
    def relative_error(self) -> float:
        """Largest difference, in units of the largest logit."""
        return self.max_abs_error / max(self.max_abs_logit, 1e-12)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"relative_error": self.relative_error}


def compare(
    original: Network, exported: Network, batches: Iterable[Logits], *, region_based: bool
) -> WindowParity:
    """Run both networks on batches ``(B, C, *roi_size)`` of windows."""
    windows, error, largest, same, voxels = 0, 0.0, 0.0, 0, 0
    for batch in batches:
        expected, found = original(batch), exported(batch)
        error = float(np.maximum(error, np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
        equal = decided(found, region_based) == decided(expected, region_based)
        windows, same, voxels = windows + len(batch), same + int(equal.sum()), voxels + equal.size
    return WindowParity(
        windows=windows, max_abs_error=error, max_abs_logit=largest, agreement=same / voxels
    )


def decided(logits: Logits, region_based: bool) -> NDArray[Any]:
    """Return what logits ``(B, K, *S)`` say: the largest class, or yes or no to each region."""
    return logits > 0 if region_based else logits.argmax(axis=1)


def paired_dice(original: Sequence[float], exported: Sequence[float]) -> tuple[float, float] | None:
    """Return the mean Dice of the original and of an exported model, over the same structures.

    Where only one of them is right that a structure is absent, Dice applies to the other alone, as
    0; being right then counts as 1, so that inventing a structure is a loss.

    Args:
        original: Dice of each structure in each scan, 0 to 1; NaN where it is rightly absent.
        exported: Likewise.

    Returns:
        ``None`` where all structures are rightly absent in both.
    """
    pairs = np.array([original, exported], np.float64)
    applies = ~np.isnan(pairs).all(axis=0)
    if not applies.any():
        return None
    before, after = np.nan_to_num(pairs[:, applies], nan=1.0).mean(axis=1)
    return float(before), float(after)
