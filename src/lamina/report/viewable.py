"""Scans and label maps as the viewer of the web page takes them: NIfTI."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.files import atomic_path
from lamina.io import smallest_integer, write_volume
from lamina.report.slices import is_photograph
from lamina.volume import Volume

_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def write_viewable(volume: Volume, path: Path) -> None:
    """Write a scan for the viewer: 2D ones as one slice, photographs in colour, of no known unit.

    By that unit the viewer knows what does not tell how it lies in the body. Voxels that are no
    number get the lowest value; doubles become single.

    Args:
        volume: Any scan or picture.
        path: ``.nii`` or ``.nii.gz``.

    Raises:
        FileError: The file cannot be written.
    """
    array = _finite(volume.array) if volume.array.dtype.kind == "f" else volume.array
    if volume.spatial_dims == 2:
        _write_slice(replace(volume, array=array[..., None]), path)
    else:
        write_volume(replace(volume, array=array), path)


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    single = array.astype(np.float32)
    known = np.isfinite(single)
    if not known.all():
        single[~known] = single[known].min() if known.any() else 0
    return single


def _write_slice(volume: Volume, path: Path) -> None:
    from nibabel.nifti1 import Nifti1Image

    stored = np.ascontiguousarray(np.moveaxis(volume.array, 0, -1))
    if stored.dtype == np.uint8 and is_photograph(volume):
        stored = stored.view(_RGB)[..., 0]
    elif stored.dtype.kind in "biu":
        stored = stored.astype(smallest_integer(stored))
    image = Nifti1Image(stored, volume.affine)
    image.header.set_xyzt_units("unknown")
    with atomic_path(path) as part:
        image.to_filename(part)
