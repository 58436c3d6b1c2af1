"""One run on several processes: how many there are, and what they agree on.

Lightning starts them, or finds out who did: torchrun, SLURM and others. Each sees an equal share of
every step's patches; gradients are averaged. Collective functions here must be called by all
processes together; in a run of one process they do nothing.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import distributed, nn

from lamina.errors import ConfigError
from lamina.training.config import TrainConfig
from lamina.training.device import chosen_device, placement, require_device
from lamina.training.sharding import sharding

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE = timedelta(days=1)
"""Validation may keep some processes waiting for long; one that is gone is noticed otherwise."""


@dataclass(frozen=True)
class Layout:
    """Where the processes of a run are."""

    device: str
    """``cpu``; ``cuda`` for as many GPUs as there are processes; one GPU such as ``cuda:1``."""
    per_node: int
    """Processes on each machine."""
    nodes: int
    sharded: bool = False
    """Whether they share out the weights, too."""

    @property
    def count(self) -> int:
        """Processes in all."""
        return self.per_node * self.nodes

    def for_trainer(self, network: nn.Module) -> dict[str, Any]:
        """Return what Lightning's ``Trainer`` must know of it."""
        about = placement(self.device)
        if self.count == 1:
            return about
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
        batch_norm = nn.modules.batchnorm._BatchNorm
        if self.device == "cpu" and any(isinstance(part, batch_norm) for part in network.modules()):
            log.warning(
                "Batch statistics are of each process's own patches: a run of one process differs."
            )
        return about | {
            "devices": self.per_node,
            "num_nodes": self.nodes,
            "sync_batchnorm": self.device != "cpu",
            "strategy": self._strategy(network),
        }

    def _strategy(self, network: nn.Module) -> Strategy:
        if self.sharded:
            return sharding(network, _PATIENCE)
        # Some networks leave weights out of a step: a head without weight in the loss.
        return DDPStrategy(find_unused_parameters=True, timeout=_PATIENCE)


def layout_of(config: TrainConfig) -> Layout:
    """Return where the processes of a run are: as settings say, or as torchrun started them.

    Raises:
        ConfigError: There are not so many GPUs, torchrun started other processes, a step's patches
            cannot be shared out evenly, or there is nothing to shard.
    """
    local, world = 1, 1
    if started := _by_torchrun():
        local, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    per_node, nodes = config.devices or local, config.nodes or world // local
    if started and per_node * nodes != world:
        raise ConfigError(
            f"devices = {per_node}, nodes = {nodes}: torchrun started {world} processes.",
            remedy="Leave both settings out.",
        )
    layout = Layout(chosen_device(config.device), per_node, nodes, config.sharded)
    if layout.sharded and (layout.device == "cpu" or layout.count == 1):
        raise ConfigError(
            "sharded: needs several GPUs.", remedy="Leave it out, or add --devices or --nodes."
        )
    if layout.sharded and config.compile:
        raise ConfigError("compile: not together with sharded.", remedy="Leave one of them out.")
    if layout.count > 1 and ":" in layout.device:
        raise ConfigError(f"device = {layout.device!r}: is one GPU, for one process.")
    if layout.device == "cuda":
        require_device(f"cuda:{per_node - 1}", "Use fewer devices, or the device cpu.")
    parts, batch = config.grad_accum_steps, config.batch_size or 0
    if batch % (parts * layout.count):
        raise ConfigError(
            f"batch_size = {batch}: cannot be shared out evenly among {layout.count} processes"
            + (f" in {parts} parts." if parts > 1 else "."),
            remedy=f"Make it a multiple of {parts * layout.count}, or use fewer processes.",
        )
    return layout


def _by_torchrun() -> bool:
    return distributed.is_available() and distributed.is_torchelastic_launched()


def require_one_process(config: TrainConfig, what: str) -> None:
    """Refuse several processes for what would be done by each of them.

    Args:
        config: The settings.
        what: The job, as its user calls it.

    Raises:
        ConfigError: There are several, or are to be.
    """
    if _by_torchrun() or (config.devices or 1) * (config.nodes or 1) > 1:
        raise ConfigError(
            f"{what}: cannot share its steps among several processes.",
            remedy="Leave devices, nodes and torchrun out, or train one fold, such as --fold 0.",
        )


def leads() -> bool:
    """Tell whether this is the first process, which writes; before they have met, too."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return not _by_torchrun() or os.environ["RANK"] == "0"


def place() -> tuple[int, int]:
    """Return this process's number, from 0, and how many there are."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def largest(value: float) -> float:
    """Return the largest value that any process has."""
    if place()[1] == 1:
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    told = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(told, distributed.ReduceOp.MAX)
    return float(told)


def mean_of(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of a number that every process has; NaN if one of them is."""
    if (count := place()[1]) == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / count


def together(batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return all processes' shares of a batch as one."""
    if (count := place()[1]) == 1:
        return list(batch)
    whole = []
    for tensor in batch:
        shares = [torch.empty_like(tensor.contiguous()) for _ in range(count)]
        distributed.all_gather(shares, tensor.contiguous())
        whole.append(torch.cat(shares))
    return whole


def shared_out(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the function's result of every item, in order, each found by one of the processes."""
    rank, count = place()
    mine = [function(item) for item in items[rank::count]]
    if count == 1:
        return mine
    found: list[list[Result]] = [[] for _ in range(count)]
    distributed.all_gather_object(found, mine)
    return [found[number % count][number // count] for number in range(len(items))]


def align_buffers(network: nn.Module) -> None:
    """Give a network everywhere the running statistics that the first process saves."""
    if place()[1] > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
