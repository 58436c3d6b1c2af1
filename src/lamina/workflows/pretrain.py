"""Pretrain: train a vision transformer on the slices of prepared cases, without their labels."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lamina.config import load_yaml, resolve
from lamina.data.cache import open_cases
from lamina.data.plan import Plan
from lamina.data.slices import slice_axis
from lamina.data.views import Slices, ViewDataset, find_slices, side_axis
from lamina.errors import ConfigError, TrainingError
from lamina.folders.lineage import identity
from lamina.folders.run import VIT_FILE, RunFolder, append_epoch, read_history
from lamina.folders.transformer import read_vit, write_vit
from lamina.folders.work import WorkFolder
from lamina.inference.attention_maps import MapMaker, make_maker
from lamina.models.vit import ViTConfig
from lamina.training.checkpoints import LAST
from lamina.training.device import chosen_device, require_device, resolve_precision
from lamina.training.dino import DINOReport, DINOState, distil
from lamina.training.dino_config import DINOConfig
from lamina.training.distillation import Distillation
from lamina.training.meters import OnStep, no_step
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.provenance import origin_of
from lamina.workflows.steps.run_record import (
    Record,
    begun_with,
    check_new,
    check_same_start,
    plain,
    unchanged,
)

_EPOCHS = 800
_MAY_CHANGE = (
    *("epochs", "time_budget_s", "workers", "checkpoint_every_s", "collapse_patience"),
    "device",
)
"""Settings that may change when a run is resumed."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What a pretraining reached."""

    out: Path
    vit: Path
    """The teacher's transformer, which ``attention-maps`` takes."""
    slices: int
    epochs: int
    seconds: float
    last_epoch: dict[str, Any]
    """What the last epoch measured; empty when none was finished."""
    stopped_because: str
    """Empty when the run came to its planned end."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"out": str(self.out), "vit": str(self.vit)}

    def outcome(self) -> dict[str, Any]:
        """Return what the run's manifest keeps of it."""
        state = "stopped" if self.stopped_because else "finished"
        kept = {"epochs": self.epochs, "seconds": self.seconds}
        return {"state": state, "why": self.stopped_because, **kept}


def pretrain(
    work: str | Path,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    start: str | Path | None = None,
    fold: int | None = None,
    resume: bool = False,
    on_epoch: Callable[[DINOReport], None] = lambda report: None,
    on_step: OnStep = no_step,
    progress: Progress = no_progress,
) -> Pretraining:
    """Train on the training slices of one fold; leave checkpoint, history, transformer in ``out``.

    Args:
        work: Folder that ``prepare`` wrote.
        out: Folder to write; must not hold a run unless ``resume``.
        settings: Fields of :class:`~lamina.training.dino.DINOConfig`, nested as there.
        start: Transformer to start from, as ``import-weights --from dino`` or ``pretrain`` writes
            it; random weights by default.
        fold: Whose training cases; 0 if not given, or that of the run to resume.
        resume: Go on with the run in ``out`` from its last checkpoint, with its own settings; only
            its length and device may be changed.
        on_epoch: Called after each epoch.
        on_step: Called after each step with step, progress 0..1, loss and seconds to go.
        progress: Called while slices are looked for.

    Raises:
        ConfigError: Settings are unknown or wrong, all of them are listed; or the device is not
            here.
        BundleError: ``start`` cannot be read.
        TrainingError: ``out`` already holds a run, there is nothing to resume, the cases or
            ``start`` are others now, a loss is not finite, or the transformer has collapsed.
        DatasetError, FileError: ``work`` is not prepared, lacks the fold, or holds a damaged case.
    """
    began = time.monotonic()
    folder, run = WorkFolder(Path(work)), RunFolder(Path(out))
    found = run.manifest() if resume else {}
    plan, fold, config = (_resumed if resume else _begun)(run, folder, fold, settings or {})
    cases = open_cases(folder.cache, folder.fold(fold).train)
    slices = find_slices(cases, slice_axis(plan), progress)
    torch.manual_seed(config.seed)
    if resume:
        if start:
            check_same_start(run, read_vit(Path(start)).key(), found.get("start"))
        manifest = found | {"config": plain(config)}
        maker = _described(manifest)
    else:
        trained_on = {"slices": len(slices), "fold": fold, **identity(folder)}
        maker = _first(config, slices, Path(start) if start else None, trained_on)
        begun_from = {"start": maker.key() if start else None}
        manifest = _manifest(folder, plan, fold, config, maker) | begun_from
    module = Distillation(maker.vit, config)
    with Record(run, found) as record:
        record.hold()
        record.begin(manifest)
        state = distil(
            module,
            _views(config, plan, slices, maker),
            config,
            run.checkpoints,
            resume=resume,
            began=began,
            on_epoch=_recorder(run, on_epoch),
            on_step=on_step,
        )
        _refuse_collapsed(run, state)
        origin = maker.origin | {"epochs": state.epochs_done, "steps": state.steps_done}
        write_vit(replace(maker, vit=module.teacher.vit, origin=origin), run.root / VIT_FILE)
        result = Pretraining(
            out=run.root,
            vit=run.root / VIT_FILE,
            slices=len(slices),
            epochs=state.epochs_done,
            seconds=round(state.elapsed_s, 1),
            last_epoch=(read_history(run, "loss") or [{}])[-1],
            stopped_because=state.stopped_because,
        )
        record.end(**result.outcome())
    return result


def _completed(config: DINOConfig, plan: Plan) -> DINOConfig:
    """Fill in what the settings leave open."""
    ct = any(how.scheme == "ct" for how in plan.normalisation)
    device = chosen_device(config.device)
    require_device(device)
    return replace(
        config,
        views=replace(config.views, tone=config.views.tone or ("gamma" if ct else "solarise")),
        epochs=config.epochs or (None if config.time_budget_s else _EPOCHS),
        precision=resolve_precision(config.precision, device),
    )


def _begun(
    run: RunFolder, folder: WorkFolder, fold: int | None, settings: Mapping[str, Any]
) -> tuple[Plan, int, DINOConfig]:
    """Return plan, fold and settings of a new run."""
    check_new(run)
    plan = folder.plan()
    return plan, fold or 0, _completed(resolve(DINOConfig, settings), plan)


def _resumed(
    run: RunFolder, folder: WorkFolder, fold: int | None, settings: Mapping[str, Any]
) -> tuple[Plan, int, DINOConfig]:
    """Return those of the run to resume, sure that its prepared cases are still there."""
    run.check_kind("pretraining")
    if not (run.checkpoints / LAST).is_file():
        raise TrainingError(
            f"{run.root}: was stopped before its first checkpoint.",
            remedy="Remove it, and start another run.",
        )
    plan, fold = begun_with(run, folder, fold)
    config = unchanged(
        run,
        load_yaml(run.config_file),
        settings,
        _MAY_CHANGE,
        lambda given: _completed(resolve(DINOConfig, given), plan),
    )
    return plan, fold, config


def _first(
    config: DINOConfig, slices: Slices, start: Path | None, trained_on: Mapping[str, Any]
) -> MapMaker:
    """Return the transformer that training starts from, with the scale of the slices it sees."""
    if start is not None:
        if config.vit:
            raise ConfigError(
                f"vit = {config.vit}: the transformer to start from is what it is.",
                remedy="Leave out vit, or the transformer to start from.",
            )
        maker = read_vit(start)
        _check_sizes(config, maker.vit.config.token_size)
        origin = {"start": maker.origin.get("start", start.name), **trained_on}
        earlier = {"before": maker.origin} if maker.origin else {}
        return replace(maker, origin=origin | earlier)
    token_size = config.vit.get("token_size", ViTConfig.token_size)
    if isinstance(token_size, int):
        _check_sizes(config, token_size)
    shape = resolve(ViTConfig, {"image_size": config.views.global_size}, config.vit)
    return MapMaker(
        vit=shape.build().eval(),
        mean=(slices.mean,) * shape.in_channels,
        std=(slices.std,) * shape.in_channels,
        origin={"start": "scratch", **trained_on},
    )


def _check_sizes(config: DINOConfig, token_size: int) -> None:
    views = config.views
    sizes = {"global_size": views.global_size}
    if views.multicrop:
        sizes["local_size"] = views.local_size
    odd = [f"views.{name} = {size}" for name, size in sizes.items() if size % max(token_size, 1)]
    if odd:
        raise ConfigError(f"{', '.join(odd)}: must be a multiple of {token_size}, the token size.")


def _described(manifest: Mapping[str, Any]) -> MapMaker:
    """Return a resumed run's transformer, whose weights are in the checkpoint."""
    told = manifest["attention"]
    return make_maker(told, resolve(ViTConfig, told["fields"]).build().state_dict())


def _views(config: DINOConfig, plan: Plan, slices: Slices, maker: MapMaker) -> ViewDataset:
    return ViewDataset(
        slices=slices,
        views=config.views,
        batch_size=config.batch_size,
        seed=config.seed,
        mean=maker.mean,
        std=maker.std,
        side_axis=side_axis(plan),
    )


def _recorder(
    run: RunFolder, on_epoch: Callable[[DINOReport], None]
) -> Callable[[DINOReport], None]:
    def record(report: DINOReport) -> None:
        append_epoch(run, asdict(report))
        on_epoch(report)

    return record


def _refuse_collapsed(run: RunFolder, state: DINOState) -> None:
    if state.stopped_because.startswith("collapsed"):
        raise TrainingError(
            f"{run.root}: the transformer has {state.stopped_because}, "
            f"{state.collapsed_epochs} epochs in a row; its maps would mean nothing.",
            remedy="Start another run with a lower lr, a teacher_momentum nearer to 1, "
            "a larger batch_size, or from a published checkpoint.",
        )


def _manifest(
    folder: WorkFolder, plan: Plan, fold: int, config: DINOConfig, maker: MapMaker
) -> dict[str, Any]:
    return {
        **origin_of(folder),
        "seed": config.seed,
        "fold": fold,
        "attention": maker.describe(),
        "config": plain(config),
        "plan": plan.as_dict(),
    }
