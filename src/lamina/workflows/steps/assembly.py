"""What a run is made of, as settings and plan say: network, loss, patches."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lamina.bundle import load_bundle
from lamina.config import layered, resolve
from lamina.data.augment import Augmentation
from lamina.data.cache import PreparedCase
from lamina.data.patches import PatchDataset
from lamina.data.plan import Plan
from lamina.data.sampling import PatchSampler
from lamina.data.sides import side_pairs
from lamina.errors import ConfigError
from lamina.files import sha256
from lamina.folders.lineage import link_of
from lamina.folders.run import RunFolder
from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.models import (
    NETWORKS,
    NetworkConfig,
    configure,
    input_channels,
    own_learning_rate,
    own_precision,
)
from lamina.training.config import TrainConfig
from lamina.training.device import chosen_device, require_device
from lamina.training.fit import resolve_precision
from lamina.training.regions import RegionTargets
from lamina.training.transfer import freeze, load_fitting
from lamina.workflows.steps.run_record import MAY_CHANGE, check_unchanged, plain

log = logging.getLogger(__name__)

_REGION_LOSS = "region_dice_ce"
_SIDE = 32
"""Voxels along each axis of what a network is asked for its heads with, at least."""


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


def resumed(
    run: RunFolder, recorded: Mapping[str, Any], settings: Mapping[str, Any], plan: Plan
) -> TrainConfig:
    """Return the settings to go on with a run, sure that only those differ that may.

    Args:
        run: The run.
        recorded: Its settings, which may be a part of all.
        settings: What is asked for now.
        plan: Its plan.

    Raises:
        TrainingError: Others would change; all of them are listed.
        ConfigError: Settings are unknown or wrong.
    """
    then = dict(recorded)
    device = chosen_device(settings.get("device", then.get("device")))
    if device == "cpu" and then.get("precision") == "fp16":  # which only GPUs have
        then["precision"] = "auto"
    config = completed(configured(layered(then, settings), plan), plan)
    # Settings that are younger than the run had their defaults in it.
    before = configured(layered(then, {"device": config.device}), plan)
    check_unchanged(run, plain(completed(before, plan)), plain(config), MAY_CHANGE)
    return config


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

    It is tried once: whether its options suit the classes shows only then.

    Raises:
        ConfigError: It is one of regions, and the plan is not, or the other way round; or its
            options are wrong, or those of other classes.
    """
    if plan.region_based != (config.loss == _REGION_LOSS):
        raise ConfigError(
            f"loss = {config.loss!r}: does not go with region_based = {plan.region_based}.",
            remedy=f"{_REGION_LOSS} is the loss of regions; the others are of structures.",
        )
    loss = build_loss(config.loss, **config.loss_options)
    if plan.region_based:
        loss = RegionTargets(loss, plan.labels)
    sides = (2,) * len(plan.seen_axes)
    loss(torch.zeros(1, plan.num_outputs, *sides), torch.zeros(1, *sides, dtype=torch.uint8))
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


def network_and_loss(config: TrainConfig, plan: Plan) -> tuple[NetworkConfig, DeepSupervision]:
    """Return the network and the loss that settings name, sure that they go together.

    Raises:
        ConfigError: As of each alone; or ``deep_supervision`` has another number of weights than
            the network has heads, or ``frozen`` does not fit.
    """
    network, loss = network_of(config, plan), loss_of(config, plan)
    if config.frozen or config.deep_supervision is not None:
        with torch.device("meta"):  # where building and running cost neither memory nor time
            net = network.build().train()
            freeze(net, config.frozen)
            _check_heads(config, net, network)
    return network, loss


def _check_heads(config: TrainConfig, net: nn.Module, network: NetworkConfig) -> None:
    weights, side = config.deep_supervision, max(_SIDE, 2 * network.size_divisor)
    if weights is None:
        return
    with torch.no_grad():
        found = net(torch.zeros(2, input_channels(network), *[side] * network.spatial_dims))
    count = 1 if isinstance(found, torch.Tensor) else len(found)
    if len(weights) == count > 1:
        return
    raise ConfigError(
        f"deep_supervision = {weights}: {config.model} has {count} head{'s' * (count > 1)}.",
        remedy=f"Give {count} weights, finest first, or leave it out."
        if count > 1
        else "Set it, and deep_supervision_fade, to null: they are for networks with several.",
    )


def net_of(
    network: NetworkConfig, config: TrainConfig, start: Path | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network in its initial state, and what to record of where its weights are from.

    Raises:
        ConfigError: No weight of ``start`` fits, it has several members, or ``frozen`` names none.
        BundleError: ``start`` is damaged.
    """
    net, transfer = network.build(), {}
    if start is not None:
        bundle = load_bundle(start)
        if bundle.num_members > 1:
            raise ConfigError(
                f"--from {start}: is an ensemble of {bundle.num_members} networks.",
                remedy="Give the model of one fold, such as run/fold_0/model.lamina.",
            )
        told = load_fitting(net, bundle.weights)
        if fresh := (*told.reshaped, *told.missing):
            log.warning("%s: %d weights taken; fresh: %s.", start, len(told.loaded), fresh)
        transfer = {"start": {"model": sha256(start), **link_of(bundle), **told.as_dict()}}
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
