"""Scans and label maps as the viewer of the web page takes them: NIfTI."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.files import atomic_path
from lamina.geometry import Affine
from lamina.io import smallest_integer, write_volume
from lamina.volume import Volume

_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def write_viewable(volume: Volume, path: Path) -> None:
    """Write a scan for the viewer: 2D ones as one slice, in colour, of an unknown unit.

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
        _write_slice(array[..., None], volume.affine, path)
    else:
        write_volume(replace(volume, array=array), path)


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    single = array.astype(np.float32)
    known = np.isfinite(single)
    if not known.all():
        single[~known] = single[known].min() if known.any() else 0
    return single


def _write_slice(array: NDArray[Any], affine: Affine, path: Path) -> None:
    from nibabel.nifti1 import Nifti1Image

    stored = np.ascontiguousarray(np.moveaxis(array, 0, -1))
    if array.dtype == np.uint8 and len(array) == 3:
        stored = stored.view(_RGB)[..., 0]
    elif array.dtype.kind in "biu":
        stored = stored.astype(smallest_integer(stored))
    image = Nifti1Image(stored, affine)
    image.header.set_xyzt_units("unknown")
    with atomic_path(path) as part:
        image.to_filename(part)
