"""To nnU-Net: write a dataset of any layout as nnU-Net v2 takes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.data.layouts import read_cohort
from lamina.data.layouts.nnunet_export import Export, write_nnunet


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written, and where."""

    out: Path
    export: Export

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "num_cases": len(self.export.cohort.cases),
            "num_rewritten": self.export.num_rewritten,
            "revalued": {str(old): new for old, new in self.export.revalued.items()},
        }


def to_nnunet(
    dataset: str | Path, out: str | Path, *, layout: str | None = None, copy: bool = False
) -> Conversion:
    """Write a dataset as a raw folder of nnU-Net v2, whole or not at all.

    Args:
        dataset: Folder of labelled scans.
        out: New folder, called such as ``Dataset101_Liver``.
        layout: Registered layout; found by itself if not given.
        copy: Copy files rather than link to those that nnU-Net reads as they are.

    Raises:
        DatasetError: The folder is not understood, or ``out`` is called otherwise or holds files.
        FileError, GeometryError, LabelError: A file cannot be read or written.
        UnknownNameError: The layout is not registered.
    """
    out = Path(out)
    cohort = read_cohort(Path(dataset), layout)
    return Conversion(out=out, export=write_nnunet(cohort, out, copy=copy))
