"""To nnU-Net: write a dataset of any layout as nnU-Net v2 takes it."""

from pathlib import Path

from lamina.data.layouts import read_cohort
from lamina.data.layouts.nnunet_export import Export, write_nnunet


def to_nnunet(
    dataset: str | Path, out: str | Path, *, layout: str | None = None, copy: bool = False
) -> Export:
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
    return write_nnunet(read_cohort(Path(dataset), layout), Path(out), copy=copy)
