"""Run the training of one network from start, or from where it was stopped, to end."""

import logging
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lamina.data.patches import PatchDataset, StepSampler, loading
from lamina.data.sampling import PatchSampler, random_for
from lamina.data.workers import num_cores
from lamina.losses import Loss
from lamina.models.accelerate import keep_freed_memory
from lamina.training.callbacks import EpochReport, Epochs, RunState, Validate
from lamina.training.checkpoints import AtomicCheckpointIO, latest, read_latest
from lamina.training.compilation import Compilation
from lamina.training.config import TrainConfig
from lamina.training.device import LIGHTNING_PRECISION, resolve_precision
from lamina.training.ending import ending_together
from lamina.training.meters import OnStep, StepMeter, TimedLoader, no_step
from lamina.training.number_guard import NumberGuard
from lamina.training.processes import Layout, layout_of, leads
from lamina.training.recomputation import checkpoint_activations
from lamina.training.schedule import Clock, Ending
from lamina.training.small_grids import SmallGrids
from lamina.training.stopping import STOP_FILE, StopRequests
from lamina.training.supervised import Supervised

_NOISE = (
    ".*does not have many workers.*",  # cutting patches in this process is quickest on a CPU
    ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of torch
    ".*in eval mode at the start of training.*",  # frozen batch normalisation is meant to be
)


def fit(
    network: nn.Module,
    loss: Loss,
    patches: PatchDataset,
    config: TrainConfig,
    folder: Path,
    *,
    validate: Validate,
    resume: bool = False,
    stop_file: Path | None = None,
    began: float | None = None,
    validation_steps: float = 0.0,
    loggers: Sequence[Logger] = (),
    on_begin: Callable[[], None] = lambda: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_step: OnStep = no_step,
) -> RunState:
    """Train ``network`` and leave ``last.ckpt`` and ``best.ckpt`` in ``folder``.

    Same seed, same data, same machine: the same weights, bit for bit, on a CPU, whatever the
    number of loader workers and however often the run was killed and resumed (as long as it is not
    timed). Numbers that stay NaN or infinite in half precision make the run go on in fp32.

    Several processes share the patches of each step, and the loss is that of all of them: up to
    rounding, gradients are those of one process, unless the network draws random numbers, or has
    batch normalisation and runs on CPUs. Only the first process writes and calls ``on_...``; the
    number of processes may change when a run is resumed.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)`` logits, in its initial state.
        loss: ``(what the network returns in training mode, target) -> scalar``.
        patches: The training patches.
        config: Settings, with ``steps_per_epoch`` and ``epochs`` or ``time_budget_s`` filled in.
        folder: For the checkpoints.
        validate: Scores a network; ``{"dice": mean, ...}``.
        resume: Go on from ``last.ckpt``, or ``best.ckpt`` where that is gone; a run that was killed
            before its first checkpoint starts again.
        stop_file: A file whose appearance stops the run after its step; ``folder / "stop"`` if not
            given.
        began: Reading of ``time.monotonic()`` from which the run's time counts; now if not given.
        validation_steps: As many steps as a validation may last, for a run with a time budget to
            foresee its end before it has seen one.
        loggers: Lightning loggers that get each epoch's numbers.
        on_begin: Called once, before the first step, when all processes are there.
        on_epoch: Called after each epoch.
        on_step: Called after each step with step, progress 0..1, loss and seconds to go.

    Returns:
        The run's state at its end.

    Raises:
        ConfigError: Devices are not there, or a step's patches cannot be shared out among them.
        TrainingError: The checkpoint is damaged, the numbers stay NaN or infinite, or another
            process of the run is gone.
        FileError: A prepared case cannot be read, or a checkpoint written; the last one is intact.
    """
    assert config.steps_per_epoch is not None
    layout = layout_of(replace(config, batch_size=patches.sampler.batch_size))
    checkpoint = read_latest(folder) if resume else None
    state = RunState.of(checkpoint["run"]) if checkpoint else RunState()
    clock = _clock(config, state, began, validation_steps)
    first_step = int(checkpoint["state_dict"]["steps_done"]) if checkpoint else 0
    last_step = clock.last_step
    impatient = state.out_of_patience(config.patience)
    if not impatient:
        state.stopped_because = ""
    # Steps that were not scored yet call for a last validation, whatever the time.
    over = clock.progress(first_step) >= 1 and 0 < first_step == state.scored_step
    if impatient or first_step >= last_step or over:
        if leads():
            on_begin()
        return state
    callbacks: list[Callback] = [
        _Start(checkpoint, latest(folder), on_begin),
        NumberGuard(folder, state, partial(_cases_of, patches.sampler)),
        Epochs(config, config.steps_per_epoch, validate, folder, state, on_epoch),
        StopRequests(stop_file or folder / STOP_FILE, state),
        StepMeter(clock, on_step),
    ]
    parts = config.grad_accum_steps
    if config.compile:
        callbacks.append(Compilation(_first_batch(patches, parts)))
    module = _module(network, loss, config, clock, layout)
    if layout.device == "cpu":
        keep_freed_memory()
    precision = state.precision or resolve_precision(config.precision, layout.device)
    if precision == "bf16" and layout.device == "cpu":
        callbacks.insert(0, SmallGrids())
    about = layout.for_trainer(network) | {"precision": LIGHTNING_PRECISION[precision]}
    trainer = _trainer(parts, callbacks, loggers, about)
    sampler = StepSampler(
        first_step * parts,
        last_step * parts,
        patches.sampler.batch_size // parts,
        rank=trainer.global_rank,
        count=layout.count,
    )
    with ending_together(trainer):
        _run(trainer, module, _loader(patches, sampler, config.workers, layout))
    return state


def _clock(
    config: TrainConfig, state: RunState, began: float | None, validation_steps: float
) -> Clock:
    assert config.steps_per_epoch is not None
    return Clock(
        config.epochs * config.steps_per_epoch if config.epochs else None,
        config.time_budget_s,
        started=(time.monotonic() if began is None else began) - state.elapsed_s,
        ending=Ending(**{"steps": validation_steps, **state.ending}),
        agreed_s=state.elapsed_s,
        first_step_s=state.first_step_s,
    )


def _module(
    network: nn.Module, loss: Loss, config: TrainConfig, clock: Clock, layout: Layout
) -> Supervised:
    module = Supervised(
        network,
        loss,
        config.optimiser,
        clock,
        config.seed,
        parts=config.grad_accum_steps,
        fade=config.deep_supervision_fade,
        channels_last=bool(config.channels_last),
    )
    if layout.sharded:  # which saves the optimiser's memory of other weights in a wrong order
        module.to(memory_format=torch.contiguous_format)
    if config.activation_checkpointing:
        checkpoint_activations(network)
    return module


def _first_batch(patches: PatchDataset, parts: int) -> tuple[Tensor, Tensor]:
    pairs = [patches[number] for number in range(patches.sampler.batch_size // parts)]
    image, target = zip(*pairs, strict=True)
    return torch.stack(image), torch.stack(target)


def _cases_of(sampler: PatchSampler, step: int) -> list[str]:
    slots = range(sampler.batch_size)
    places = (sampler.place_for(step, s, random_for(sampler.seed, step, s)) for s in slots)
    return [case.case_id for case, _ in places]


class _Start(Callback):
    """Puts weights, averages, the optimiser's memory and fp16's scale back, before any step."""

    def __init__(
        self,
        checkpoint: dict[str, Any] | None,
        path: Path | None,
        on_begin: Callable[[], None],
    ) -> None:
        self.checkpoint = checkpoint
        self.path = path
        self.on_begin = on_begin

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if trainer.is_global_zero:
            self.on_begin()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.checkpoint is None:
            return
        if isinstance(trainer.strategy, FSDPStrategy):  # it loads all at once, from a file
            assert self.path is not None
            trainer.strategy.load_checkpoint(self.path)
        else:
            trainer.strategy.load_model_state_dict(self.checkpoint, strict=True)
            trainer.strategy.load_optimizer_state_dict(self.checkpoint)
        precision = trainer.precision_plugin
        if scale := self.checkpoint.get(type(precision).__qualname__):  # of fp16's gradients
            precision.load_state_dict(scale)
        self.checkpoint = None


def _run(trainer: Trainer, module: Supervised, loader: DataLoader[Any]) -> None:
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message)
        try:
            trainer.fit(module, loader)
        except SystemExit as error:  # Lightning makes one of Ctrl-C, and is deaf to it from then on
            signal.signal(signal.SIGINT, on_ctrl_c)
            raise KeyboardInterrupt from error


def _trainer(
    parts: int, callbacks: list[Callback], loggers: Sequence[Logger], about: dict[str, Any]
) -> Trainer:
    # One pass over one long list of steps: epochs, validation and checkpoints are ours to place,
    # which is what makes a run resumable at any step.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return Trainer(
        **about,
        accumulate_grad_batches=parts,
        max_epochs=1,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=list(loggers) or False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _loader(
    patches: PatchDataset, sampler: StepSampler, workers: int | None, layout: Layout
) -> DataLoader[Any]:
    if workers is None:
        workers = 0 if layout.device == "cpu" else min(8, num_cores() // layout.per_node)
    return TimedLoader(patches, batch_sampler=sampler, **loading(workers, layout.device))
