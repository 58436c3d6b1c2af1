"""Train: fit a network to one fold of a prepared dataset and leave a portable model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from lamina.config import load_yaml, resolve
from lamina.data.cache import PreparedCase, open_cases, preparation_of
from lamina.data.folds import Fold
from lamina.data.patches import PatchDataset
from lamina.data.plan import Plan
from lamina.data.sampling import PatchSampler
from lamina.errors import ConfigError, TrainingError
from lamina.evaluation.scores import Scores, score_case
from lamina.files import remove_parts, sha256, write_json, write_text
from lamina.inference.sliding_window import sliding_window
from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.models import NetworkConfig, configure, input_channels
from lamina.training.callbacks import EpochReport, Validate
from lamina.training.config import TrainConfig
from lamina.training.fit import fit, resolve_precision
from lamina.training.history import HistoryLogger
from lamina.workflows.run import RunFolder, hashes, machine, software, write_bundle
from lamina.workflows.work import WorkFolder

_LENGTH = ("epochs", "time_budget_s", "patience", "workers", "checkpoint_every_s")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training run reached."""

    run: Path
    bundle: Path
    best_dice: float
    """Mean foreground Dice of the best epoch on the validation cases, on the prepared grid."""
    best_epoch: int
    epochs: int
    seconds: float
    stopped_because: str
    """Empty when the run came to its planned end."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"run": str(self.run), "bundle": str(self.bundle)}


def train(
    work: Path,
    out: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    fold: int | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_step: Callable[[int, float, float, float | None], None] | None = None,
) -> Training:
    """Train on one fold and leave checkpoints, history, manifest and ``model.lamina`` in ``out``.

    Args:
        work: Folder that ``prepare`` wrote.
        out: Run folder; must not hold a run unless ``resume``.
        settings: Fields of :class:`~lamina.training.config.TrainConfig`, nested as there.
        fold: Which split of ``splits.json``; 0 if not given, or that of the run to resume.
        resume: Go on with the run in ``out`` from its last checkpoint, with its own settings, plan
            and fold; only its length may be changed by ``settings``.
        on_epoch: Called after each epoch.
        on_step: Called after each step with step, progress 0..1, loss and seconds to go.

    Raises:
        ConfigError: Settings are unknown or wrong; all of them are listed.
        TrainingError: ``out`` already holds a run, there is nothing to resume, or the run to resume
            was of another fold or other prepared cases.
        DatasetError, FileError: ``work`` is not prepared, lacks the fold, or holds a damaged case.
    """
    folder, run = WorkFolder(work), RunFolder(out)
    plan, fold, config = (_resumed if resume else _begun)(run, folder, fold, settings or {})
    split = folder.fold(fold)
    network = _network(config, plan)
    loss = DeepSupervision(build_loss(config.loss, **config.loss_options), config.deep_supervision)
    cases, val_cases = (open_cases(folder.cache, ids) for ids in (split.train, split.val))
    manifest = (
        run.manifest() | {"config": _plain(config)}
        if resume
        else _manifest(folder, plan, split, fold, config, network)
    )
    write_text(run.config_file, yaml.safe_dump(_plain(config), sort_keys=False))
    write_json(run.manifest_file, manifest)
    for place in (run.root, run.checkpoints):
        remove_parts(place)
    torch.manual_seed(config.seed)
    state = fit(
        network.build(),
        loss,
        _patches(config, plan, cases),
        config,
        run.checkpoints,
        validate=_validator(plan, val_cases),
        resume=resume,
        loggers=_loggers(run),
        on_epoch=on_epoch,
        on_step=on_step,
    )
    return Training(
        run=out,
        bundle=write_bundle(run),
        best_dice=state.best_dice,
        best_epoch=state.best_epoch,
        epochs=state.epochs_done,
        seconds=round(state.elapsed_s, 1),
        stopped_because=state.stopped_because,
    )


def _begun(
    run: RunFolder, folder: WorkFolder, fold: int | None, settings: Mapping[str, Any]
) -> tuple[Plan, int, TrainConfig]:
    """Return plan, fold and settings of a new run."""
    if run.manifest_file.is_file():
        raise TrainingError(
            f"{run.root}: already holds a run.", remedy="Add --resume, or choose another --out."
        )
    if run.holds_other_files():
        raise TrainingError(
            f"{run.root}: holds files that no run wrote.", remedy="Choose another --out."
        )
    plan = folder.plan()
    config = _completed(resolve(TrainConfig, settings), plan)
    return _overruled(plan, config), fold or 0, config


def _overruled(plan: Plan, config: TrainConfig) -> Plan:
    """Let the plan say what is done where settings overrule it; the window follows the patch."""
    patch = config.patch_size
    chosen: dict[str, Any] = {
        "network": config.model,
        "patch_size": patch,
        "roi_size": plan.roi_size if patch == plan.patch_size else patch,
        "batch_size": config.batch_size,
    }
    changed = {name: value for name, value in chosen.items() if value != getattr(plan, name)}
    reasons = plan.reasons | dict.fromkeys(changed, "Set by hand.")
    return replace(plan, **changed, reasons=reasons)


def _resumed(
    run: RunFolder, folder: WorkFolder, fold: int | None, settings: Mapping[str, Any]
) -> tuple[Plan, int, TrainConfig]:
    """Return those of the run to resume, sure that its prepared cases are still there."""
    manifest = run.manifest()
    plan = Plan.from_dict(manifest["plan"])
    if fold not in (None, manifest["fold"]):
        raise TrainingError(f"{run.root}: is a run of fold {manifest['fold']}, not {fold}.")
    same = preparation_of(plan) == preparation_of(folder.plan())
    if not same or sha256(folder.splits_file) != manifest["hashes"]["splits.json"]:
        raise TrainingError(
            f"{folder.root}: is not what {run.root} was trained on: it was prepared anew.",
            remedy="Give the work folder that the run began with, or start another run.",
        )
    return plan, manifest["fold"], _resumed_config(run, plan, settings)


def _resumed_config(run: RunFolder, plan: Plan, settings: Mapping[str, Any]) -> TrainConfig:
    recorded = load_yaml(run.config_file)
    config = _completed(resolve(TrainConfig, recorded, settings), plan)
    now = _plain(config)
    changed = [name for name in now if name not in _LENGTH and now[name] != recorded.get(name)]
    if changed:
        raise TrainingError(
            f"{run.root}: {', '.join(changed)} cannot change when a run is resumed.",
            remedy=f"Only {', '.join(_LENGTH)} can; start another run otherwise.",
        )
    return config


def _completed(config: TrainConfig, plan: Plan) -> TrainConfig:
    """Fill in what the settings leave to the plan."""
    if config.patch_size and len(config.patch_size) != plan.spatial_dims:
        raise ConfigError(
            f"patch_size = {config.patch_size}: {plan.spatial_dims} sizes are needed."
        )
    timed = config.time_budget_s is not None
    return replace(
        config,
        model=config.model or plan.network,
        patch_size=config.patch_size or plan.patch_size,
        batch_size=config.batch_size or plan.batch_size,
        steps_per_epoch=config.steps_per_epoch or plan.steps_per_epoch,
        epochs=config.epochs or (None if timed else plan.epochs),
        precision=resolve_precision(config.precision),
    )


def _network(config: TrainConfig, plan: Plan) -> NetworkConfig:
    assert config.model is not None
    network = configure(
        config.model,
        in_channels=len(plan.channels),
        num_classes=plan.num_outputs,
        **{"spatial_dims": plan.spatial_dims, **config.model_options},
    )
    if maps := input_channels(network) - network.in_channels:
        raise ConfigError(
            f"model = {config.model!r}: reads {maps} attention maps beside the image; "
            "the prepared cases have none.",
            remedy="Use dainet_unet, or --set model_options.attention_maps=0.",
        )
    return network


def _patches(config: TrainConfig, plan: Plan, cases: list[PreparedCase]) -> PatchDataset:
    assert config.patch_size is not None
    assert config.batch_size is not None
    sampler = PatchSampler(
        cases=cases,
        patch_size=config.patch_size,
        batch_size=config.batch_size,
        seed=config.seed,
        oversample_foreground=config.oversample_foreground,
    )
    return PatchDataset(
        sampler=sampler, augmentation=config.augmentation, mirror_axes=plan.mirror_axes
    )


def _validator(plan: Plan, cases: list[PreparedCase]) -> Validate:
    """Return the scoring of whole validation cases by sliding window, on the prepared grid."""

    def validate(network: nn.Module) -> dict[str, float]:
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        rows = []
        for case in cases:
            image = torch.tensor(case.image, device=device)
            logits = sliding_window(network, image, plan.roi_size, overlap=plan.overlap)
            found = logits.argmax(0).to(torch.uint8).cpu().numpy()
            reference = case.label[0]
            rows += score_case(case.case_id, found, reference, plan.labels, case.spacing, ["dice"])
        network.train(was_training)
        scores = Scores(labels=plan.labels, metrics=("dice",), rows=tuple(rows))
        summary = scores.summary()
        by_label = {f"dice/{name}": summary[name]["dice"].mean for name in summary}
        found_any = {name: value for name, value in by_label.items() if value == value}
        return {"dice": _number(scores.mean_foreground("dice")), **found_any}

    return validate


def _number(dice: float) -> float:
    """Count a fold without any foreground as zero, so that epochs can still be ranked."""
    return dice if dice == dice else 0.0


def _loggers(run: RunFolder) -> list[Any]:
    from lightning.pytorch.loggers import TensorBoardLogger

    board = TensorBoardLogger(run.root, name="tensorboard", version="")
    return [HistoryLogger(run.history_file), board]


def _manifest(
    folder: WorkFolder,
    plan: Plan,
    split: Fold,
    fold: int,
    config: TrainConfig,
    network: NetworkConfig,
) -> dict[str, Any]:
    cohort = folder.cohort()
    cases = {case.case_id: case for case in cohort.cases}
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "software": software(),
        "machine": machine(),
        "seed": config.seed,
        "dataset": {"name": cohort.name, "licence": cohort.licence},
        "hashes": hashes(
            {
                "plan.json": folder.plan_file,
                "splits.json": folder.splits_file,
                "dataset.json": folder.cohort_file,
            }
        ),
        "fold": fold,
        "num_training_cases": len(split.train),
        "val_cases": [cases[case_id].as_dict() for case_id in split.val],
        "network": {"name": config.model, "fields": asdict(network)},
        "config": _plain(config),
        "plan": plan.as_dict(),
    }


def _plain(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as JSON and YAML know them: lists, not tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain
