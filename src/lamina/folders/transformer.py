"""The transformer that draws attention maps: as a file, in a work folder, and in a run.

DAI-Net reads its maps with the image (Yeganeh et al., ICCV Workshops 2023, section 3.1).
"""

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lamina.errors import BundleError, ConfigError, TrainingError
from lamina.files import atomic_path
from lamina.folders.lineage import foreknowledge, identity
from lamina.folders.run import VIT_FILE
from lamina.folders.work import WorkFolder
from lamina.inference.attention_maps import MapMaker, make_maker
from lamina.models import NetworkConfig

log = logging.getLogger(__name__)


def read_vit(path: Path) -> MapMaker:
    """Read a transformer: a file, or the folder of its pretraining.

    Raises:
        BundleError: It is missing, damaged, or no transformer of Lamina's.
    """
    file = path / VIT_FILE if path.is_dir() else path
    if not file.is_file():
        unfinished = path.is_dir()
        raise BundleError(
            f"{path}: {'holds no finished transformer' if unfinished else 'no such file'}.",
            remedy="Give a folder that lamina pretrain finished, or a file of import-weights.",
        )
    try:
        with safe_open(file, "pt") as content:
            told = content.metadata() or {}
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        description = {"fields": json.loads(told["fields"]), **json.loads(told.get("maps", "{}"))}
        return make_maker(description, weights)
    except BundleError as error:
        raise BundleError(f"{file}: {error.message}", remedy=error.remedy) from error
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise BundleError(
            f"{file}: is no transformer of Lamina's.",
            remedy=f"lamina import-weights --from dino {file.name} --out vit.safetensors makes one "
            "from a published checkpoint.",
        ) from error


def write_vit(maker: MapMaker, file: Path) -> None:
    """Write a transformer as :func:`read_vit` reads it, atomically."""
    maps = maker.describe()
    fields = maps.pop("fields")
    about = {"network": "vit", "fields": json.dumps(fields), "maps": json.dumps(maps)}
    weights = {name: tensor.cpu().contiguous() for name, tensor in maker.vit.state_dict().items()}
    with atomic_path(file) as part:
        part.write_bytes(save(weights, metadata=about))  # save_file hides it from other users


def transformer_for(folder: WorkFolder, network: NetworkConfig, fold: int) -> MapMaker | None:
    """Return the transformer whose maps the network reads; ``None`` if it reads none.

    Raises:
        ConfigError: The prepared cases have no maps, or another number than the network reads.
    """
    wanted = network.attention_maps
    if not wanted:
        return None
    if not (folder.root / VIT_FILE).is_file():
        raise ConfigError(
            f"The network reads {wanted} attention maps beside the image; the prepared cases have "
            "none.",
            remedy=f"Run lamina pretrain {folder.root} and lamina attention-maps {folder.root} "
            "first, or use dainet_unet.",
        )
    maker = read_vit(folder.root)
    if (drawn := maker.vit.config.num_heads) != wanted:
        raise ConfigError(
            f"The network reads {wanted} attention maps; the prepared cases have {drawn}.",
            remedy=f"Set model_options.attention_maps={drawn}.",
        )
    if maker.from_scratch:
        log.warning("Attention maps come from a transformer trained from scratch on these scans.")
    known = foreknowledge(maker.origin, identity(folder))
    known.warn("The transformer", fold, labels=False)
    return maker


def carry(maker: MapMaker, run: Path, network: dict[str, Any]) -> None:
    """Keep a transformer in a run folder, and its description with that of the run's network.

    Raises:
        TrainingError: The run was begun with another.
    """
    told, known = network.setdefault("attention", maker.describe()), run / VIT_FILE
    if told != maker.describe() or (known.is_file() and read_vit(known).key() != maker.key()):
        raise TrainingError(
            f"{run}: was trained on other attention maps than the prepared cases have now.",
            remedy="Run lamina attention-maps with the transformer of then, or start another run.",
        )
    write_vit(maker, known)
