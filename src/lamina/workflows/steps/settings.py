"""The settings of a training run: those that are given, and what the plan adds to them."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from lamina.config import resolve
from lamina.data.augment import Augmentation
from lamina.data.plan import Plan
from lamina.errors import ConfigError
from lamina.folders.run import RunFolder
from lamina.folders.work import WorkFolder
from lamina.models import usual
from lamina.training.config import TrainConfig
from lamina.training.device import chosen_device, require_device, resolve_precision
from lamina.workflows.steps.run_record import MAY_CHANGE, unchanged

REGION_LOSS = "region_dice_ce"


def run_settings(folder: WorkFolder, fold: int, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a new run of one fold.

    Raises:
        ConfigError: As :func:`configured` and :func:`completed` do.
        DatasetError: The folder is not prepared, or lacks the fold.
    """
    plan = folder.plan()
    given = configured(settings, plan)
    num_cases = len(folder.fold(fold, given.training_share).train)
    config = completed(given, plan)
    if config.steps_per_epoch is None:
        assert config.passes_per_epoch is not None
        assert config.batch_size is not None
        steps = ceil(config.passes_per_epoch * num_cases / config.batch_size)
        config = replace(config, steps_per_epoch=steps)
    return config


def configured(settings: Mapping[str, Any], plan: Plan) -> TrainConfig:
    """Lay ``settings`` over the learning rate that suits the network they, or the plan, name.

    Raises:
        ConfigError: Settings are unknown or wrong; all of them are listed.
        UnknownNameError: There is no such network.
    """
    config = resolve(TrainConfig, settings)
    rate = usual(config.model or plan.network).learning_rate
    return config if rate is None else resolve(TrainConfig, {"optimiser": {"lr": rate}}, settings)


def completed(config: TrainConfig, plan: Plan) -> TrainConfig:
    """Fill in what the settings leave to the plan.

    ``steps_per_epoch`` stays open where ``passes_per_epoch`` and the cases of a fold decide it.

    Raises:
        ConfigError: Settings and plan differ in axes, one has slices and the other volumes, or the
            device is not here.
    """
    model = config.model or plan.network
    for name in ("patch_size", "roi_size"):
        sides = getattr(config, name)
        if sides and len(sides) != plan.spatial_dims:
            raise ConfigError(f"{name} = {sides}: {plan.spatial_dims} sizes are needed.")
        if sides and plan.slice_axis is not None and sides[plan.slice_axis] != 1:
            raise ConfigError(
                f"{name} = {sides}: is of volumes; the plan cuts slices across axis "
                f"{plan.slice_axis}.",
                remedy="A network asked for by name is planned in volumes where it can see them: "
                f"lamina plan WORK --model {model}.",
            )
    axes, num_axes = config.augmentation.mirror_axes or (), len(plan.seen_axes)
    if any(axis >= num_axes for axis in axes):
        raise ConfigError(f"augmentation: mirror_axes = {axes}: a patch has {num_axes} axes.")
    device = chosen_device(config.device)
    require_device(device)
    planned_steps = None if config.passes_per_epoch else plan.steps_per_epoch
    timed = config.time_budget_s is not None
    by_default = config.loss == TrainConfig.loss
    rehearsed = config.model in (None, plan.network) and device == "cpu"
    precision = usual(model).precision or (plan.precision if rehearsed else "auto")
    layout = config.channels_last
    return replace(
        config,
        model=model,
        loss=REGION_LOSS if plan.region_based and by_default else config.loss,
        patch_size=config.patch_size or plan.patch_size,
        batch_size=config.batch_size or plan.batch_size,
        steps_per_epoch=config.steps_per_epoch or planned_steps,
        epochs=config.epochs or (None if timed else plan.epochs),
        precision=resolve_precision(
            precision if config.precision == "auto" else config.precision, device
        ),
        channels_last=rehearsed and plan.channels_last if layout is None else layout,
    )


def resumed(
    run: RunFolder, recorded: Mapping[str, Any], settings: Mapping[str, Any], plan: Plan
) -> TrainConfig:
    """Return the settings to go on with a run, as :func:`unchanged` does."""
    return unchanged(
        run,
        recorded,
        settings,
        MAY_CHANGE,
        lambda given: completed(configured(given, plan), plan),
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
