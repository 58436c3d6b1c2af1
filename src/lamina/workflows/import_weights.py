"""Import weights: turn a checkpoint that a paper's authors published into a model of Lamina's."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lamina.bundle import Bundle, save_bundle
from lamina.config import load_yaml
from lamina.data.plan import Plan
from lamina.errors import BundleError, ConfigError, some
from lamina.files import sha256
from lamina.folders.transformer import write_vit
from lamina.inference.attention_maps import MapMaker
from lamina.models import NETWORKS, NetworkConfig, configure
from lamina.models.reference import Fit, fit_reference, reference_of
from lamina.models.vit import ViT, ViTConfig
from lamina.workflows.steps.provenance import software

_TASKS = Path(__file__).parents[1] / "recipes" / "checkpoints"
_STATES = ("state_dict", "teacher", "model")
"""Keys under which checkpoints keep the weights, best first."""
_STEM = "stem.0.weight"
"""Reads the image's channels, in every published network that segments."""
_SHOWN = 10
"""Names listed of each kind of misfit."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of a checkpoint."""

    out: Path
    network: str
    """Preset, or ``vit`` for a DINO checkpoint."""
    config: dict[str, Any]
    parameters: int
    left_over: tuple[str, ...]
    """Weights of the checkpoint that the network has no use for, such as a classifier's."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"out": str(self.out)}


def import_weights(
    source: str, file: str | Path, out: str | Path, *, task: str | None = None
) -> Imported:
    """Read published weights and write a portable model; nothing is unpickled but plain tensors.

    Args:
        source: Paper: ``"glims"``, ``"lgmsnet"`` or ``"dino"``.
        file: ``.pt``, ``.pth`` or ``.safetensors``.
        out: ``.lamina`` file to write; ``.safetensors`` for DINO, whose network segments nothing.
        task: What the channels and outputs mean and how scans are prepared: a name in
            ``recipes/checkpoints`` or a YAML file like those, ``trained_on`` being the channels in
            the order of the published weights where the plan has another; found by the numbers of
            channels and classes where only one fits.

    Raises:
        UnknownNameError: No such paper.
        BundleError: The file is missing or unsafe, or its weights do not fit the network.
        ConfigError: No task fits, several do, or the task's file is wrong.
    """
    file, out = Path(file), Path(out)
    reference_of(source)  # a name that is wrong is told before the file is read
    fit = fit_reference(source, None, _read(file))
    _refuse_misfits(fit, file)
    if isinstance(fit.config, ViTConfig):
        name = "vit"
        _write_encoder(fit, out)
    else:
        name = _preset(fit.config)
        _write_model(name, fit, _task(name, fit.config, task), file, out)
    return Imported(
        out=out,
        network=name,
        config=asdict(fit.config),
        parameters=sum(p.numel() for p in fit.network.parameters()),
        left_over=fit.surplus,
    )


def _read(file: Path) -> Mapping[str, torch.Tensor]:
    """Return the weights of a checkpoint by name."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror or error}.") from error
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        if isinstance(error, pickle.UnpicklingError) and _is_saved(file):
            raise BundleError(
                f"{file}: holds more than weights, and will not be unpickled.",
                remedy="Save its state dict alone: torch.save(model.state_dict(), FILE).",
            ) from error
        raise BundleError(
            f"{file}: is not a readable checkpoint.",
            remedy="Give the file that the authors published, or fetch it anew.",
        ) from error
    for key in _STATES:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not _all_tensors(content):
        raise BundleError(f"{file}: holds no weights by name.", remedy="Give a state dict.")
    return dict(content)


def _is_saved(file: Path) -> bool:
    """Tell whether a file begins as those do that torch saves, now or once: a zip or a pickle."""
    with file.open("rb") as stream:
        return stream.read(4).startswith((b"PK\x03\x04", b"\x80"))


def _all_tensors(content: Mapping[str, Any]) -> bool:
    return all(isinstance(value, torch.Tensor) for value in content.values())


_NUMBERS: list[Any] = [
    np.dtype,
    np.float64(0).__reduce__()[0],
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8")),
]
"""What NumPy makes its numbers of: trainers keep the best score beside the weights."""


def _refuse_misfits(fit: Fit, file: Path) -> None:
    kinds = {
        "missing": fit.missing,
        "unexpected": fit.unexpected,
        "of another shape": fit.misshapen,
    }
    misfits = [
        f"{len(names)} {kind}: {some(names, _SHOWN)}" for kind, names in kinds.items() if names
    ]
    if misfits:
        raise BundleError(
            f"{file}: the weights are not those of the network; {'; '.join(misfits)}.",
            remedy="Give the whole checkpoint of that network; others compute something else.",
        )


def _preset(config: NetworkConfig) -> str:
    """Return the preset that a configuration is, or the first that it is a variation of."""
    kin = {}
    for name in NETWORKS:
        try:
            preset = configure(name, in_channels=config.in_channels, num_classes=config.num_classes)
        except ConfigError:
            continue
        if type(preset) is type(config):
            kin[name] = preset
    exact = [name for name, preset in kin.items() if preset == config]
    return [*exact, *kin][0]


def _task(name: str, config: NetworkConfig, task: str | None) -> dict[str, Any]:
    if task and task.endswith((".yaml", ".yml")):
        return load_yaml(Path(task))
    shipped = {path.stem: load_yaml(path) for path in sorted(_TASKS.glob("*.yaml"))}
    if task:
        if task not in shipped:
            known = ", ".join(shipped)
            raise ConfigError(f"task {task!r}: unknown; known: {known}, or a .yaml file.")
        return shipped[task]
    wanted = (name, config.in_channels, config.num_classes)
    fitting = [
        stem
        for stem, content in shipped.items()
        if tuple(content[key] for key in ("network", "in_channels", "num_classes")) == wanted
    ]
    if len(fitting) != 1:
        raise ConfigError(
            f"task: {' and '.join(fitting) or 'no shipped task'} fits {name} with "
            f"{config.in_channels} channels and {config.num_classes} outputs.",
            remedy="Name one, or give a YAML file that describes channels, labels and preparation.",
        )
    return shipped[fitting[0]]


def _write_model(name: str, fit: Fit, task: dict[str, Any], file: Path, out: Path) -> None:
    if not isinstance(task.get("plan"), dict):
        raise ConfigError("task: the file has no plan.", remedy="See recipes/checkpoints.")
    plan = Plan.from_dict({"network": name, **task["plan"]})
    bundle = Bundle(
        network={"name": name, "fields": json.loads(json.dumps(asdict(fit.config)))},
        weights=_reordered(fit.network.state_dict(), task, plan),
        plan=plan,
        training={"imported_from": file.name, "left_over": list(fit.surplus)},
        metrics={},
        provenance={
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "software": software(),
            "hashes": {file.name: sha256(file)},
        },
    )
    save_bundle(bundle, out)


def _reordered(
    weights: dict[str, torch.Tensor], task: Mapping[str, Any], plan: Plan
) -> dict[str, torch.Tensor]:
    """Have the network read the plan's channels where it was trained on them in another order."""
    order = task.get("trained_on", plan.channels)
    if sorted(order) != sorted(plan.channels):
        raise ConfigError(
            f"task: trained_on = {list(order)} must be the plan's channels in another order.",
            remedy=f"They are {', '.join(plan.channels)}.",
        )
    places = [order.index(channel) for channel in plan.channels]
    return weights | {_STEM: weights[_STEM][:, places]}


def _write_encoder(fit: Fit, out: Path) -> None:
    if out.suffix != ".safetensors":
        raise BundleError(
            f"{out}: these weights segment nothing by themselves.",
            remedy=f"Name the file {out.stem}.safetensors.",
        )
    assert isinstance(fit.network, ViT)
    write_vit(MapMaker(vit=fit.network), out)
