"""The planner: networks measured, a plan decided within a budget, and rehearsed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psutil

from lamina.data.budget import Budget, NetworkCost
from lamina.data.cohort import Cohort
from lamina.data.fingerprint import Fingerprint
from lamina.data.plan import ASKED, Plan
from lamina.data.planning import make_plan
from lamina.data.workers import run_over
from lamina.errors import ConfigError, LaminaError, ResourceError
from lamina.models import NETWORKS, NetworkConfig, configure
from lamina.training.device import is_here, require_device

if TYPE_CHECKING:
    from lamina.workflows.steps.rehearsal import Rehearsal

AUTO = "auto"
"""Stands for the network that suits scans and budget."""

PROGRAM_BYTES = 0.7e9
"""What Python, torch and the loaded code take before any step."""

_NARROW = {"channels": (4, 8, 16, 32, 64)}
_DEFAULT = "lightmedseg"
_LADDERS: Mapping[int, tuple[tuple[str, dict[str, Any]], ...]] = {
    3: (("glims", {}), ("lgmsnet_3d", {}), (_DEFAULT, {}), (_DEFAULT, _NARROW)),
    2: (("lgmsnet_2d", {}), (_DEFAULT, {}), (_DEFAULT, _NARROW)),
}
"""Networks by the axes they see, strongest and slowest first."""
_FEW_SLICES = 16
_FAR_APART = 3.0
_MOST_REHEARSALS = 3
_WHOLE_RUN = 1.1
"""Peak of a run over that of its first steps: validation and checkpoints come on top."""


@dataclass(frozen=True)
class Planner:
    """Decides for one dataset and one budget, and learns from rehearsals what networks take."""

    fingerprint: Fingerprint
    cohort: Cohort
    budget: Budget
    model: str = AUTO
    spacing: Sequence[float] | None = None
    """Voxel size in mm that was asked for."""
    device: str = "cpu"
    regions_because: str = ""
    """Why the network answers for regions; empty where structures exclude each other."""
    costs: dict[str, NetworkCost] = field(default_factory=dict)
    """What was measured so far."""
    rehearsals: dict[str, "Rehearsal"] = field(default_factory=dict)
    """What was rehearsed so far, by the same names."""

    def decide(self) -> Plan:
        """Return the plan, as far as is known.

        Raises:
            ConfigError: The budget is too small for any plan, no network fits the scans, or the
                spacing is not of their axes.
            UnknownNameError: The network is not registered.
        """
        labels = self.cohort.labels
        candidates = self._candidates()
        plan = make_plan(self.fingerprint, labels, candidates, self.budget, self.spacing)
        reasons = dict(plan.reasons)
        if self.model != AUTO:
            reasons["network"] = ASKED
        if self.regions_because:
            reasons["region_based"] = self.regions_because
        plan = replace(plan, region_based=bool(self.regions_because), reasons=reasons)
        taken = self.rehearsals.get(_key(plan.network, plan.network_options))
        if taken is None or self.device != "cpu":
            return plan
        return replace(
            plan,
            precision=taken.precision,
            channels_last=taken.channels_last,
            reasons=reasons | taken.reasons,
        )

    def rehearsed(self, plan: Plan, cache: Path, case_ids: tuple[str, ...]) -> Plan:
        """Train a few steps as planned, where the device is at hand, and decide again with that.

        Args:
            plan: What :meth:`decide` returned.
            cache: Folder of prepared cases.
            case_ids: Those to train on.
        """
        if not is_here(self.device):
            return plan
        for _ in range(_MOST_REHEARSALS):
            with TemporaryDirectory() as scratch:  # not its own: it may be killed for its memory
                task = _Rehearse(cache, case_ids, self.device, Path(scratch))
                ((_, taken),) = run_over(task, [plan], workers=1)
            self._learn(plan, taken)
            again = self.decide()
            if _same_step(plan, again):
                return again
            plan = again
        return plan

    def _candidates(self) -> Iterator[NetworkCost]:
        """Measure one network after the other, as they are asked for."""
        for name, options in self._rungs():
            key = _key(name, options)
            if key not in self.costs:
                self.costs[key] = self._measure(name, options)
            yield self.costs[key]

    def _rungs(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        if self.model != AUTO:
            return ((self.model, {}),)
        dims = 2 if self._is_thin_stack() else self.fingerprint.spatial_dims
        ladder = _LADDERS[dims]
        if self.budget.time_s is None:
            return ladder[ladder.index((_DEFAULT, {})) :]
        return ladder

    def _is_thin_stack(self) -> bool:
        """Tell whether volumes are few slices far apart, in which no network sees depth."""
        if self.fingerprint.spatial_dims == 2:
            return False
        spacing = self.fingerprint.median_spacing
        across = spacing.index(max(spacing))
        few = self.fingerprint.median_shape(spacing)[across] < _FEW_SLICES
        return few and max(spacing) > _FAR_APART * min(spacing)

    def _measure(self, name: str, options: dict[str, Any]) -> NetworkCost:
        from lamina.training.cost import measure_cost

        where = self.device if is_here(self.device) else "cpu"
        return measure_cost(self._network(name, options), name, options, where)

    def _network(self, name: str, options: dict[str, Any]) -> NetworkConfig:
        channels, classes = len(self.cohort.channels), self.cohort.labels.num_classes
        dims = min(
            NETWORKS.get(name)(channels, classes).spatial_dims, self.fingerprint.spatial_dims
        )
        if self.model == AUTO and self._is_thin_stack():
            dims = 2
        return configure(
            name, in_channels=channels, num_classes=classes, **{**options, "spatial_dims": dims}
        )

    def _learn(self, plan: Plan, taken: "Rehearsal | LaminaError") -> None:
        key = _key(plan.network, plan.network_options)
        known = self.costs[key]
        if isinstance(taken, ResourceError):
            self.costs[key] = replace(known, bytes_per_voxel=2 * known.bytes_per_voxel)
            return
        if isinstance(taken, LaminaError):
            raise taken
        self.rehearsals[key] = taken
        voxels = plan.batch_size * prod(plan.patch_size)
        peak = _WHOLE_RUN * taken.peak_bytes
        self.costs[key] = replace(
            known,
            bytes_per_voxel=max(1.0, peak - self.budget.program_bytes) / voxels,
            seconds_per_voxel=taken.step_s / voxels,
            predict_seconds_per_voxel=taken.predict_s_per_voxel,
        )


@dataclass(frozen=True)
class _Rehearse:
    """A rehearsal as a worker process is asked for it."""

    cache: Path
    case_ids: tuple[str, ...]
    device: str
    scratch: Path

    def __call__(self, plan: Plan) -> "Rehearsal":
        from lamina.workflows.steps.rehearsal import rehearse

        return rehearse(plan, self.cache, self.case_ids, self.scratch, self.device)


def _key(network: str, options: Mapping[str, Any]) -> str:
    return f"{network} {options}"


def _same_step(one: Plan, other: Plan) -> bool:
    names = ("network", "network_options", "patch_size", "batch_size")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def budget_of(
    ram_bytes: float | None, vram_bytes: float | None, time_s: float | None, device: str
) -> Budget:
    """Return what training may take: what is granted, or what there is.

    Args:
        ram_bytes: Main memory; half of what is free if not given.
        vram_bytes: GPU memory; what the GPU has if not given.
        time_s: For a training run.
        device: ``"cpu"``, or a GPU such as ``"cuda"``.

    Raises:
        ConfigError: It is less than the program alone takes, or the GPU is not here and nobody
            says how much memory it has.
    """
    if device != "cpu":
        import torch

        if not vram_bytes:
            another = "Give the vram of another machine's GPU, or take the device cpu."
            require_device(device, another)
        granted = vram_bytes or torch.cuda.get_device_properties(device).total_memory
        return Budget(memory_bytes=0.8 * granted, device="GPU memory", time_s=time_s)
    granted = ram_bytes or psutil.virtual_memory().available / 2
    if granted <= PROGRAM_BYTES:
        whose = "ram" if ram_bytes else "half of the free memory"
        raise ConfigError(
            f"{whose}: {granted / 1e6:.0f} MB; the program alone takes {PROGRAM_BYTES / 1e6:.0f}.",
            remedy="Grant at least 1 GB of ram.",
        )
    return Budget(memory_bytes=granted, program_bytes=PROGRAM_BYTES, time_s=time_s)
