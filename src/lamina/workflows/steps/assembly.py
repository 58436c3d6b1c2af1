"""What a run is made of, as settings and plan say: network, loss, patches."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lamina.bundle import load_bundle
from lamina.data.cache import PreparedCase
from lamina.data.patches import PatchDataset
from lamina.data.plan import Plan
from lamina.data.sampling import PatchSampler
from lamina.data.sides import side_pairs
from lamina.errors import ConfigError
from lamina.files import sha256
from lamina.folders.lineage import link_of
from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.models import (
    NETWORKS,
    NetworkConfig,
    configure,
)
from lamina.training.config import TrainConfig
from lamina.training.regions import RegionTargets
from lamina.training.transfer import freeze, load_fitting
from lamina.workflows.steps.settings import REGION_LOSS

log = logging.getLogger(__name__)

_SIDE = 32
"""Voxels along each axis of what a network is asked for its heads with, at least."""


def loss_of(config: TrainConfig, plan: Plan) -> DeepSupervision:
    """Return the loss that settings name, fed with regions where the plan has the network say them.

    It is tried once: whether its options suit the classes shows only then.

    Raises:
        ConfigError: It is one of regions, and the plan is not, or the other way round; or its
            options are wrong, or those of other classes.
    """
    if plan.region_based != (config.loss == REGION_LOSS):
        raise ConfigError(
            f"loss = {config.loss!r}: does not go with region_based = {plan.region_based}.",
            remedy=f"{REGION_LOSS} is the loss of regions; the others are of structures.",
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
    if plan.region_based and preset.exclusive_classes:
        raise ConfigError(
            f"model = {config.model!r}: its classes exclude each other, the plan is region_based.",
            remedy="Choose another network, or prepare again without what asks for regions: "
            "--protocol, or regions_class_order or region_based in dataset.json.",
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
        found = net(torch.zeros(2, network.input_channels, *[side] * network.spatial_dims))
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
                f"{start}: is an ensemble of {bundle.num_members} networks.",
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
    return PatchDataset(
        sampler=sampler,
        augmentation=config.augmentation,
        mirror_axes=plan.seen_mirror_axes,
        side_axis=plan.seen_side_axis,
        side_pairs=side_pairs(plan.labels),
        slice_axis=plan.slice_axis,
        untouched_channels=cases[0].num_maps,
    )
