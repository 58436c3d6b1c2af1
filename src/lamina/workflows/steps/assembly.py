"""What a run is made of, as settings and plan say: network, loss, patches, validation."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lamina.bundle import load_bundle
from lamina.config import resolve
from lamina.data.augment import Augmentation
from lamina.data.cache import PreparedCase
from lamina.data.patches import PatchDataset
from lamina.data.plan import Plan
from lamina.data.sampling import PatchSampler
from lamina.data.sides import side_pairs
from lamina.errors import ConfigError
from lamina.evaluation.scores import Scores, score_case
from lamina.evaluation.summary import Score
from lamina.files import sha256
from lamina.inference.backend import TorchNetwork
from lamina.inference.predictor import segment_prepared
from lamina.inference.windows import starts_along
from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.models import NETWORKS, NetworkConfig, configure, own_learning_rate, own_precision
from lamina.training.callbacks import Validate
from lamina.training.config import TrainConfig
from lamina.training.device import chosen_device, require_device
from lamina.training.fit import resolve_precision
from lamina.training.processes import shared_out
from lamina.training.regions import RegionTargets
from lamina.training.transfer import freeze, load_fitting

log = logging.getLogger(__name__)

_REGION_LOSS = "region_dice_ce"
_OF_A_STEP = 0.4
"""Share of the time of a training step, per voxel, that a validation is guessed to take: a forward
pass is a third, to which come joining windows and scoring."""


def configured(settings: Mapping[str, Any], plan: Plan) -> TrainConfig:
    """Lay ``settings`` over the learning rate that suits the network they, or the plan, name.

    Raises:
        ConfigError: Settings are unknown or wrong; all of them are listed.
        UnknownNameError: There is no such network.
    """
    config = resolve(TrainConfig, settings)
    rate = own_learning_rate(config.model or plan.network)
    return config if rate is None else resolve(TrainConfig, {"optimiser": {"lr": rate}}, settings)


def completed(config: TrainConfig, plan: Plan, num_cases: int = 0) -> TrainConfig:
    """Fill in what the settings leave to the plan.

    Args:
        config: The settings.
        plan: Of the work folder.
        num_cases: Training cases, for an epoch that is so many passes over them.

    Raises:
        ConfigError: Settings and plan differ in axes, one has slices and the other volumes, or the
            device is not here.
    """
    for name in ("patch_size", "roi_size"):
        sides = getattr(config, name)
        if sides and len(sides) != plan.spatial_dims:
            raise ConfigError(f"{name} = {sides}: {plan.spatial_dims} sizes are needed.")
        if sides and plan.slice_axis is not None and sides[plan.slice_axis] != 1:
            raise ConfigError(
                f"{name} = {sides}: is of volumes; the plan cuts slices across axis "
                f"{plan.slice_axis}.",
                remedy="A network asked for by name is planned in volumes where it can see them: "
                f"lamina plan WORK --model {config.model or plan.network}.",
            )
    axes, num_axes = config.augmentation.mirror_axes or (), len(plan.seen_axes)
    if any(axis >= num_axes for axis in axes):
        raise ConfigError(f"augmentation: mirror_axes = {axes}: a patch has {num_axes} axes.")
    device = chosen_device(config.device)
    require_device(device)
    batch = config.batch_size or plan.batch_size
    passes = ceil((config.passes_per_epoch or 0) * num_cases / batch)
    timed = config.time_budget_s is not None
    by_default = config.loss == TrainConfig.loss
    rehearsed = config.model in (None, plan.network) and device == "cpu"
    usual = own_precision(config.model or plan.network) or (plan.precision if rehearsed else "auto")
    layout = config.channels_last
    return replace(
        config,
        model=config.model or plan.network,
        loss=_REGION_LOSS if plan.region_based and by_default else config.loss,
        patch_size=config.patch_size or plan.patch_size,
        batch_size=batch,
        steps_per_epoch=config.steps_per_epoch or passes or plan.steps_per_epoch,
        epochs=config.epochs or (None if timed else plan.epochs),
        precision=resolve_precision(
            usual if config.precision == "auto" else config.precision, device
        ),
        channels_last=rehearsed and plan.channels_last if layout is None else layout,
    )


def overruled(plan: Plan, config: TrainConfig) -> Plan:
    """Let the plan say what is done where settings overrule it; the window follows the patch."""
    patch = config.patch_size
    window = plan.roi_size if patch == plan.patch_size else patch
    settings: dict[str, Any] = {
        "network": config.model,
        "patch_size": patch,
        "roi_size": config.roi_size or window,
        "overlap": plan.overlap if config.overlap is None else config.overlap,
        "blending": config.blending or plan.blending,
        "batch_size": config.batch_size,
        "mirror_axes": _mirror_axes(config.augmentation, plan),
    }
    changed = {name: value for name, value in settings.items() if value != getattr(plan, name)}
    reasons = plan.reasons | dict.fromkeys(changed, "Set by hand.")
    return replace(plan, **changed, reasons=reasons)


def _mirror_axes(augmentation: Augmentation, plan: Plan) -> tuple[int, ...]:
    """Return the axes of the scan along which training mirrors it."""
    if not augmentation.p_mirror:
        return ()
    if augmentation.mirror_axes is None:
        return plan.mirror_axes
    return tuple(plan.seen_axes[place] for place in augmentation.mirror_axes)


def loss_of(config: TrainConfig, plan: Plan) -> DeepSupervision:
    """Return the loss that settings name, fed with regions where the plan has the network say them.

    Raises:
        ConfigError: It is one of regions, and the plan is not, or the other way round.
    """
    if plan.region_based != (config.loss == _REGION_LOSS):
        raise ConfigError(
            f"loss = {config.loss!r}: does not go with region_based = {plan.region_based}.",
            remedy=f"{_REGION_LOSS} is the loss of regions; the others are of structures.",
        )
    loss = build_loss(config.loss, **config.loss_options)
    if plan.region_based:
        loss = RegionTargets(loss, plan.labels)
    return DeepSupervision(loss, config.deep_supervision)


def network_of(config: TrainConfig, plan: Plan) -> NetworkConfig:
    """Return the network that settings name, made for what the plan lets it see.

    Raises:
        ConfigError: It cannot see as many axes, or cannot say regions, which may overlap.
    """
    assert config.model is not None
    channels, dims = len(plan.channels), len(plan.seen_axes)
    options = plan.network_options if config.model == plan.network else {}
    preset = NETWORKS.get(config.model)(channels, plan.num_outputs)
    if plan.region_based and getattr(preset, "exclusive_classes", False):
        raise ConfigError(
            f"model = {config.model!r}: its classes exclude each other, the plan is region_based.",
            remedy="Choose another network, or run lamina prepare without --protocol.",
        )
    own = preset.spatial_dims
    if own < dims and "spatial_dims" not in config.model_options:
        raise ConfigError(
            f"model = {config.model!r}: sees {own} axes, the plan is for {dims}.",
            remedy=f"Plan for it first: lamina plan WORK --model {config.model}.",
        )
    return configure(
        config.model,
        in_channels=channels,
        num_classes=plan.num_outputs,
        **{"spatial_dims": dims, **options, **config.model_options},
    )


def net_of(
    network: NetworkConfig, config: TrainConfig, start: Path | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network in its initial state, and what to record of where its weights are from.

    Raises:
        ConfigError: No weight of ``start`` fits, or ``frozen`` names none.
        BundleError: ``start`` is damaged.
    """
    net, transfer = network.build(), {}
    if start is not None:
        told = load_fitting(net, load_bundle(start).weights)
        if fresh := (*told.reshaped, *told.missing):
            log.warning("%s: %d weights taken; fresh: %s.", start, len(told.loaded), fresh)
        transfer = {"start": {"model": sha256(start), **told.as_dict()}}
    freeze(net, config.frozen)
    return net, transfer


def patches_of(config: TrainConfig, plan: Plan, cases: list[PreparedCase]) -> PatchDataset:
    """Return the training patches of prepared cases."""
    assert config.patch_size is not None
    assert config.batch_size is not None
    sampler = PatchSampler(
        cases=cases,
        patch_size=config.patch_size,
        batch_size=config.batch_size,
        seed=config.seed,
        oversample_foreground=config.oversample_foreground,
        balance=config.balance,
    )
    seen = plan.seen_axes
    sides = [place for place, axis in enumerate(seen) if plan.orientation[axis] in "LR"]
    return PatchDataset(
        sampler=sampler,
        augmentation=config.augmentation,
        mirror_axes=tuple(place for place, axis in enumerate(seen) if axis in plan.mirror_axes),
        side_axis=sides[0] if sides else None,
        side_pairs=side_pairs(plan.labels),
        slice_axis=plan.slice_axis,
        untouched_channels=cases[0].num_maps,
    )


def validator_of(
    plan: Plan,
    cases: list[PreparedCase],
    select_by: str,
    see: Callable[[str, NDArray[np.uint8]], None] = lambda case_id, found: None,
) -> Validate:
    """Return the scoring of whole validation cases by sliding window, on the prepared grid.

    The processes of a run share the cases; the first one has the first case.

    Args:
        plan: How the network sees a case.
        cases: The validation cases.
        select_by: A metric to compute beside Dice.
        see: Called with each case's id and the class indices ``(1, *S)`` found in it, by the
            process that scores it.
    """
    metrics = tuple(dict.fromkeys(("dice", select_by)))

    def score(case: PreparedCase, runner: TorchNetwork) -> list[Score]:
        found = segment_prepared(runner, case.read(), plan)
        see(case.case_id, found[None])
        reference = case.label[0]
        return score_case(case.case_id, found, reference, plan.labels, case.spacing, metrics)

    def validate(network: nn.Module) -> dict[str, float]:
        modes = [(part, part.training) for part in network.modules()]  # frozen parts keep theirs
        network.eval()
        runner = TorchNetwork(network, str(next(network.parameters()).device))
        rows = shared_out(partial(score, runner=runner), cases)
        for part, was_training in modes:
            part.training = was_training
        scores = Scores(labels=plan.labels, metrics=metrics, rows=tuple(chain(*rows)))
        summary = scores.summary()
        by_label = {f"dice/{name}": summary[name]["dice"].mean for name in summary}
        found_any = {name: value for name, value in by_label.items() if value == value}
        means = {name: _number(scores.mean_foreground(name)) for name in metrics}
        return means | found_any

    return validate


def validation_steps(config: TrainConfig, plan: Plan, cases: Sequence[PreparedCase]) -> float:
    """Guess how many training steps the validation of prepared cases lasts, by the voxels seen."""
    assert config.patch_size is not None
    assert config.batch_size is not None
    windows = 0
    for case in cases:
        sides = zip(case.label.shape[1:], plan.roi_size, strict=True)
        windows += prod(len(starts_along(size, side, plan.overlap)) for size, side in sides)
    seen = windows * prod(plan.roi_size)
    return _OF_A_STEP * seen / (config.batch_size * prod(config.patch_size))


def _number(score: float) -> float:
    """Count a fold without any foreground as zero, so that epochs can still be ranked."""
    return score if score == score else 0.0
