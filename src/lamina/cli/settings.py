"""Settings as people type them: the recipe < their YAML file < flags < ``--set a.b=c``."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lamina.config import layered, load_yaml, nested
from lamina.errors import ConfigError
from lamina.workflows import recipes


def settings_from(
    *,
    recipe: str | None = None,
    strict_paper: bool = False,
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Lay over each other what a command was given, in the order of this module.

    Args:
        recipe: As for :func:`lamina.recipe`, and so is ``strict_paper``.
        strict_paper: Needs a recipe.
        config: The user's YAML file.
        flags: Settings with options of their own; those that are ``None`` were not given.
        overrides: As for :func:`parse_overrides`.

    Raises:
        ConfigError: One of them is wrong.
    """
    if strict_paper and not recipe:
        raise ConfigError("--strict-paper: needs a --recipe.")
    return layered(
        recipes.recipe(recipe, strict_paper=strict_paper) if recipe else {},
        load_yaml(config) if config else {},
        {name: value for name, value in (flags or {}).items() if value is not None},
        parse_overrides(overrides or ()),
    )


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Turn ``["optimiser.lr=1e-3", "epochs=5"]`` into nested settings; values are read as YAML.

    Each is laid over those before it, as :func:`~lamina.config.layered` does.

    Raises:
        ConfigError: An entry is not of the form ``a.b=value``.
    """
    return layered(*map(_override, settings))


def _override(setting: str) -> dict[str, Any]:
    path, equals, text = setting.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise ConfigError(f"--set {setting!r}: must read name=value, such as optimiser.lr=0.001.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting!r}: {text!r} is not a YAML value.") from error
    return nested(path.strip(), value)


def parse_grid(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Turn ``["optimiser.lr=1e-3,3e-3"]`` into the values of each setting, read as YAML.

    Raises:
        ConfigError: An entry is not of the form ``a.b=value,value``, or a setting comes twice.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        name = name.strip()
        try:
            parsed = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            parsed = None
        if not parsed or not all(name.split(".")) or name in grid:
            raise ConfigError(
                f"--set-grid {text!r}: must read name=value,value, such as "
                "optimiser.lr=1e-3,3e-3, once for each name."
            )
        grid[name] = parsed
    return grid
