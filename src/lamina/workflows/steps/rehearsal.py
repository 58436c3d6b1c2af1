"""Rehearsal: train a few steps as planned, to know what a run will take before it begins."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, prod
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from lamina.data.cache import open_cases
from lamina.data.plan import Plan
from lamina.errors import ResourceError
from lamina.inference.backend import TorchNetwork
from lamina.inference.memory import peak_bytes
from lamina.inference.predictor import segment_prepared
from lamina.models import usual
from lamina.training.config import Precision, TrainConfig
from lamina.training.device import has_bf16
from lamina.training.fit import fit
from lamina.workflows.steps.assembly import loss_of, network_of, patches_of
from lamina.workflows.steps.settings import completed

_WARM_UP = 1
_FEWEST, _MOST = 2, 12
_ABOUT_S = 10.0
_WORTHWHILE = 0.85
_WINDOWS = 4
"""As many as are timed."""


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of training took on this machine."""

    steps_s: Mapping[Precision, float]
    """Number format -> median seconds from one step to the next, its patches included: that of the
    settings first, then bf16 where the processor has it and the network stands it."""
    predict_s_per_voxel: float
    """Seconds of a prediction per voxel of the window."""
    peak_bytes: int
    """Most memory of the whole process on a CPU, of all tensors on a GPU."""
    channels_last_s: float | None = None
    """Seconds of a step in the better format, images pixel by pixel; ``None`` of volumes."""

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """What to train in on a CPU: fp32, unless bf16 is worth its rounding."""
        return _worthwhile(self.steps_s)

    @property
    def channels_last(self) -> bool:
        """Whether images are to lie pixel by pixel."""
        return self._pixel_by_pixel_s < _WORTHWHILE * self._by_channel_s

    @property
    def step_s(self) -> float:
        """Seconds of a step as training will take it."""
        return self._pixel_by_pixel_s if self.channels_last else self._by_channel_s

    @property
    def _pixel_by_pixel_s(self) -> float:
        return inf if self.channels_last_s is None else self.channels_last_s

    @property
    def _by_channel_s(self) -> float:
        chosen = "bf16" if self.precision == "bf16" else next(iter(self.steps_s))
        return self.steps_s[chosen]

    @property
    def reasons(self) -> dict[str, str]:
        """One sentence on each choice."""
        steps = " and ".join(f"{took:.3g} s in {name}" for name, took in self.steps_s.items())
        reasons = {"precision": f"A step took {steps}."}
        if self.channels_last_s is not None:
            both = f"{self.channels_last_s:.3g} s pixel by pixel, {self._by_channel_s:.3g} s"
            reasons["channels_last"] = f"A step took {both} channel by channel."
        return reasons


def _worthwhile(steps_s: Mapping[Precision, float]) -> Literal["fp32", "bf16"]:
    gains = steps_s.get("bf16", inf) < _WORTHWHILE * next(iter(steps_s.values()))
    return "bf16" if gains else "fp32"


def rehearse(
    plan: Plan, cache: Path, case_ids: tuple[str, ...], scratch: Path, device: str = "cpu"
) -> Rehearsal:
    """Train some steps with the real loop and predict some windows, in this very process.

    Call it in a process of its own: its peak memory is that of the process.

    Args:
        plan: What is to be rehearsed.
        cache: Folder of prepared cases.
        case_ids: Cases to train on.
        scratch: Empty folder for checkpoints.
        device: ``"cpu"`` or a GPU.

    Raises:
        ResourceError: The memory does not suffice.
    """
    wanted = round(_ABOUT_S / plan.estimates["step_s"])
    steps = _WARM_UP + max(_FEWEST, min(_MOST, wanted))
    plan = replace(plan, precision="fp32", channels_last=False)
    config = completed(TrainConfig(epochs=1, steps_per_epoch=steps, device=device), plan)
    network = network_of(config, plan)
    channels = network.input_channels
    blank = channels - network.in_channels
    cases = [replace(case, blank_maps=blank) for case in open_cases(cache, case_ids)]
    net = network.build()

    def step_s(precision: Precision, *, channels_last: bool = False) -> float:
        stamps: list[float] = []
        fit(
            net,
            loss_of(config, plan),
            patches_of(config, plan, cases),
            replace(config, precision=precision, channels_last=channels_last),
            scratch,
            validate=lambda _: {"dice": 0.0},
            on_step=lambda *_: stamps.append(time.perf_counter()),
        )
        return median(after - before for before, after in pairwise(stamps))

    try:
        taken: dict[Precision, float] = {config.precision: step_s(config.precision)}
        if device == "cpu" and has_bf16() and usual(plan.network).precision is None:
            taken["bf16"] = step_s("bf16")
        images = device == "cpu" and len(plan.seen_axes) == 2
        pixel_by_pixel_s = step_s(_worthwhile(taken), channels_last=True) if images else None
        if images:  # models are loaded channel by channel
            convert_conv2d_weight_memory_format(net, torch.contiguous_format)
        predict_s = _predict_s(net.to(device).eval(), channels, plan, device)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ResourceError(f"{plan.network}: the planned step does not fit.") from error
    return Rehearsal(
        steps_s=taken,
        predict_s_per_voxel=predict_s / prod(plan.roi_size),
        peak_bytes=peak_bytes(device),
        channels_last_s=pixel_by_pixel_s,
    )


def _predict_s(net: torch.nn.Module, channels: int, plan: Plan, device: str) -> float:
    """Return the seconds that one window of a scan takes, once caches are warm."""
    window, axis = list(plan.roi_size), plan.seen_axes[0]
    window[axis] *= _WINDOWS
    image = np.random.default_rng(0).normal(size=(channels, *window)).astype(np.float32)
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        segment_prepared(TorchNetwork(net, device), image, replace(plan, overlap=0.0))
        taken.append(time.perf_counter() - began)
    return min(taken) / _WINDOWS
