"""Attention maps: where a transformer looks in each slice, kept beside the prepared cases.

They are computed once, of slices as they are, and move with the image when it is augmented.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lamina.data.cache import MAPS, PreparedCase
from lamina.data.slices import slice_axis
from lamina.errors import BundleError, ConfigError, DatasetError
from lamina.files import atomic_path, read_json, remove_parts, write_json
from lamina.folders.run import VIT_FILE
from lamina.folders.transformer import read_vit, write_vit
from lamina.folders.work import WorkFolder
from lamina.inference.attention_maps import MapMaker
from lamina.training.device import chosen_device, require_device
from lamina.workflows import Progress, no_progress

_PENDING = "vit.drawing.safetensors"
"""The transformer while its maps are drawn."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What became of the prepared cases."""

    work: Path
    num_heads: int
    drawn: int
    """Cases whose maps were drawn now."""
    kept: int
    """Cases that had these maps already."""
    from_scratch: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        told = {"out": str(self.work)} | asdict(self)
        del told["work"]
        return told


def draw_maps(
    work: str | Path,
    vit: str | Path,
    *,
    size: int = 256,
    upsample: Literal["nearest", "bilinear"] = "nearest",
    device: str | None = None,
    progress: Progress = no_progress,
) -> Mapped:
    """Draw the maps of every prepared case; run again after an interruption, it goes on.

    The transformer is copied to the work folder when all maps are there, for models to carry it;
    until then it lies there under another name, should it have been the work folder's own.

    Args:
        work: Folder that ``prepare`` wrote.
        vit: Transformer: a folder of ``pretrain``, or a file of ``import-weights --from dino``.
        size: Sides in pixels to which slices are brought for the transformer.
        upsample: ``"nearest"`` or ``"bilinear"``: how maps are brought from tokens to ``size``.
        device: ``"cpu"``, ``"cuda"``, ...; a GPU if there is one by default.
        progress: Called after each case.

    Raises:
        BundleError: The transformer cannot be read.
        ConfigError: ``size`` is no multiple of the transformer's token size.
        DatasetError, FileError: ``work`` is not prepared, damaged, or cannot be written.
    """
    work, vit = Path(work), Path(vit)
    folder = WorkFolder(work)
    axis = slice_axis(folder.plan())
    copy, pending = folder.root / VIT_FILE, folder.root / _PENDING
    own = vit.resolve() in (copy.resolve(), folder.root.resolve())
    source = pending if own and pending.is_file() and not copy.is_file() else vit
    maker = replace(read_vit(source), size=size, upsample=upsample)
    token = maker.vit.config.token_size
    if size < token or size % token:
        raise ConfigError(f"size = {size}: must be a multiple of {token}, the token size.")
    key = maker.key()
    where = chosen_device(device)
    require_device(where)
    maker.vit.to(where)
    cases = [PreparedCase(path.parent) for path in sorted(folder.cache.glob("*/case.json"))]
    if not cases:
        raise DatasetError(f"{folder.cache}: holds no prepared case.")
    if not _is_copy(copy, key):
        write_vit(maker, pending)
        copy.unlink(missing_ok=True)  # its presence says that all maps are its own
    drawn = 0
    for done, case in enumerate(cases, start=1):
        drawn += _store(maker, key, case, axis)
        progress(done, len(cases), "Drawing maps")
    write_vit(maker, copy)
    pending.unlink(missing_ok=True)
    return Mapped(
        work=work,
        num_heads=maker.vit.config.num_heads,
        drawn=drawn,
        kept=len(cases) - drawn,
        from_scratch=maker.from_scratch,
    )


def _is_copy(file: Path, key: str) -> bool:
    try:
        return read_vit(file).key() == key
    except BundleError:  # missing or damaged
        return False


def _store(maker: MapMaker, key: str, case: PreparedCase, axis: int | None) -> bool:
    """Keep a case's maps beside its image; return whether they had to be drawn."""
    record, file = case.folder / "maps.json", case.folder / MAPS
    wanted = {"key": key, "slice_axis": axis}
    with suppress(Exception):
        if file.is_file() and read_json(record) == wanted:
            return False
    remove_parts(case.folder)
    record.unlink(missing_ok=True)
    maps = maker.draw(case.image, axis)
    with atomic_path(file) as part:
        np.save(part, maps)
    write_json(record, wanted)
    return True
