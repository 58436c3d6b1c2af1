"""Train: fit a network to one fold of a prepared dataset and leave a portable model."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lamina.config import load_yaml
from lamina.data.cache import PreparedCase, open_cases
from lamina.data.folds import Fold
from lamina.data.plan import Plan
from lamina.errors import ConfigError
from lamina.files import check_folder, sha256
from lamina.folders.bundle import write_bundle
from lamina.folders.lineage import foreknowledge, identity
from lamina.folders.run import RunFolder, append_epoch, read_history
from lamina.folders.transformer import carry, transformer_for
from lamina.folders.work import WorkFolder
from lamina.inference.attention_maps import MapMaker
from lamina.losses import Loss
from lamina.models import NetworkConfig
from lamina.signals import ENDING
from lamina.training.callbacks import EpochReport, RunState
from lamina.training.config import TrainConfig
from lamina.training.fit import fit
from lamina.training.meters import OnStep, no_step
from lamina.training.processes import leads
from lamina.training.stopping import STOP_FILE
from lamina.workflows.steps.assembly import net_of, network_and_loss, patches_of
from lamina.workflows.steps.loggers import Board, Pictures, loggers_of
from lamina.workflows.steps.provenance import origin_of
from lamina.workflows.steps.run_record import (
    Record,
    begun_with,
    check_new,
    check_same_start,
    plain,
)
from lamina.workflows.steps.settings import overruled, resumed, run_settings
from lamina.workflows.steps.validation import validation_steps, validator_of

log = logging.getLogger(__name__)


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
    waiting: float
    """Share of the time spent on steps, 0..1, that went by waiting for patches."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        told = asdict(self)
        return {"out": str(told.pop("run"))} | told | {"bundle": str(self.bundle)}

    def outcome(self) -> dict[str, Any]:
        """Return what the run's manifest keeps of it."""
        names = ("best_dice", "best_epoch", "epochs", "seconds", "waiting")
        kept = {name: getattr(self, name) for name in names}
        state = "stopped" if self.stopped_because else "finished"
        return {"state": state, "why": self.stopped_because, **kept}


def train(
    work: str | Path,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    fold: int | None = None,
    resume: bool = False,
    start: str | Path | None = None,
    mlflow: str | Path | None = None,
    on_start: Callable[[TrainConfig, Sequence[Mapping[str, float]]], None] = lambda *about: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_step: OnStep = no_step,
) -> Training:
    """Train on one fold and leave checkpoints, history, manifest and ``model.lamina`` in ``out``.

    With several ``devices``, the program that calls this is started anew for each of them, unless
    torchrun or SLURM have done so; all need the same folders.

    Args:
        work: Folder that ``prepare`` wrote.
        out: Run folder; must not hold a run unless ``resume``.
        settings: Fields of :class:`~lamina.training.config.TrainConfig`, nested as there.
        fold: Which split of ``splits.json``; 0 if not given, or that of the run to resume.
        resume: Go on with the run in ``out`` from its last checkpoint, with its own settings, plan
            and fold; only its length and devices may be changed by ``settings``.
        start: Model to take weights from, as far as their names and shapes fit.
        mlflow: SQLite file of MLflow that gets each epoch's numbers too.
        on_start: Called before the first step with the settings, and with the epochs that a resumed
            run has behind it, as ``metrics.jsonl`` holds them.
        on_epoch: Called after each epoch.
        on_step: Called after each step with step, progress 0..1, loss and seconds to go.

    Raises:
        ConfigError: Settings are unknown or wrong; all of them are listed. No weight of ``start``
            fits, or ``frozen`` does not.
        BundleError: ``start`` is damaged.
        TrainingError: ``out`` already holds a run, or other files; there is nothing to resume, or
            the run to resume was of another fold or other prepared cases.
        DatasetError, FileError: ``work`` is not prepared, lacks the fold, or holds a damaged case;
            ``out`` is a file, or cannot be written; ``mlflow`` is no file of MLflow.
    """
    began = time.monotonic()
    if isinstance(fold, str):
        raise ConfigError(f"fold = {fold!r}: must be a number.", remedy="For all: cross_validate.")
    folder, run = WorkFolder(Path(work)), RunFolder(Path(out))
    enter = _resumed if resume else _begun
    beginning = enter(run, folder, fold, settings or {}, Path(start) if start else None)
    plan, config = beginning.plan, beginning.config
    parts = _assembled(folder, beginning)
    board = Board(run)
    pictures = Pictures(board, plan, parts.val_cases)
    loggers = loggers_of(run, parts.manifest, board, Path(mlflow) if mlflow else None)
    with Record(run, beginning.found) as record:

        def begin() -> None:
            record.hold()
            if parts.maker is not None:
                carry(parts.maker, run.root, parts.manifest["network"])
            record.begin(parts.manifest)
            on_start(config, read_history(run) if resume else ())

        def end_epoch(report: EpochReport) -> None:
            append_epoch(run, report.flat())
            pictures.show(report.step)
            on_epoch(report)

        state = fit(
            parts.net,
            parts.loss,
            patches_of(config, plan, parts.cases),
            config,
            run.checkpoints,
            validate=validator_of(
                plan, pictures.first(parts.val_cases), config.select_by, pictures.see
            ),
            resume=resume,
            stop_file=run.root / STOP_FILE,
            began=began,
            validation_steps=validation_steps(config, plan, parts.val_cases),
            loggers=loggers,
            on_begin=begin,
            on_epoch=end_epoch,
            on_step=on_step,
        )
        result = _reached(run, state)
        record.end(**result.outcome())
    if leads() and result.best_dice == 0:
        log.warning(
            "The network finds nothing in the validation cases. Train for longer, or lower "
            "optimiser.lr, which is %g.",
            config.optimiser.lr,
        )
    return result


def finish_run(
    work: Path, out: Path, settings: Mapping[str, Any], fold: int, **listeners: Any
) -> Training:
    """Begin a run, or go on with it where it was killed.

    Raises:
        KeyboardInterrupt: It was told to stop: it is not finished.
        LaminaError: As :func:`train` does.
    """
    begun = RunFolder(out).manifest_file.is_file()
    result = train(work, out, settings, fold=fold, resume=begun, **listeners)
    if result.stopped_because in ENDING:  # and is to go on later
        raise KeyboardInterrupt(result.stopped_because)
    return result


@dataclass(frozen=True, kw_only=True)
class _Beginning:
    """How a run begins, or goes on."""

    plan: Plan
    fold: int
    config: TrainConfig
    found: Mapping[str, Any] = field(default_factory=dict)
    """Manifest of the run to resume; empty of a new one."""
    start: Path | None = None
    """Model to take weights from."""


def _begun(
    run: RunFolder,
    folder: WorkFolder,
    fold: int | None,
    settings: Mapping[str, Any],
    start: Path | None,
) -> _Beginning:
    check_new(run)
    config = run_settings(folder, fold or 0, settings)
    plan = overruled(folder.plan(), config)
    return _Beginning(plan=plan, fold=fold or 0, config=config, start=start)


def _resumed(
    run: RunFolder,
    folder: WorkFolder,
    fold: int | None,
    settings: Mapping[str, Any],
    start: Path | None,
) -> _Beginning:
    """Go on with a run, sure that its prepared cases are still there, from its own weights."""
    found = run.manifest()
    check_folder(run.root)
    run.check_kind("run")
    plan, fold = begun_with(run, folder, fold)
    config = resumed(run, load_yaml(run.config_file), settings, plan)
    if start is not None:
        check_same_start(run, sha256(start), (found.get("start") or {}).get("model"))
    return _Beginning(plan=plan, fold=fold, config=config, found=found)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What is trained, on what, and what the run's manifest says of both."""

    net: nn.Module
    loss: Loss
    maker: MapMaker | None
    """Draws the attention maps that the network reads; ``None`` if it reads none."""
    cases: list[PreparedCase]
    val_cases: list[PreparedCase]
    manifest: dict[str, Any]


def _assembled(folder: WorkFolder, beginning: _Beginning) -> _Parts:
    config, plan, fold = beginning.config, beginning.plan, beginning.fold
    split = folder.fold(fold, config.training_share)
    network, loss = network_and_loss(config, plan)
    torch.manual_seed(config.seed)
    net, transfer = net_of(network, config, beginning.start)
    maker = transformer_for(folder, network, fold)
    cases, val_cases = (
        open_cases(folder.cache, ids, maker is not None) for ids in (split.train, split.val)
    )
    manifest = (
        {**beginning.found, "config": plain(config)}
        if beginning.found
        else _manifest(folder, beginning, split, network) | transfer
    )
    known = foreknowledge(manifest.get("start"), identity(folder))
    known.warn("The model begun from", fold, labels=True)
    return _Parts(
        net=net, loss=loss, maker=maker, cases=cases, val_cases=val_cases, manifest=manifest
    )


def _manifest(
    folder: WorkFolder, beginning: _Beginning, split: Fold, network: NetworkConfig
) -> dict[str, Any]:
    config, plan = beginning.config, beginning.plan
    cases = {case.case_id: case for case in folder.cohort().cases}
    return {
        **origin_of(folder),
        "seed": config.seed,
        "fold": beginning.fold,
        "num_training_cases": len(split.train),
        **folder.ranges(plan, split.train),
        "val_cases": [cases[case_id].as_dict() for case_id in split.val],
        "test_cases": [cases[case_id].as_dict() for case_id in split.test],
        "network": {"name": config.model, "fields": asdict(network)},
        "config": plain(config),
        "plan": plan.as_dict(),
    }


def _reached(run: RunFolder, state: RunState) -> Training:
    """Return what a run reached; its model is written by the first process."""
    return Training(
        run=run.root,
        bundle=write_bundle(run) if leads() else run.bundle_file,
        best_dice=state.best_dice,
        best_epoch=state.best_epoch,
        epochs=state.epochs_done,
        seconds=round(state.elapsed_s, 1),
        stopped_because=state.stopped_because,
        waiting=round(state.waiting, 4),
    )
