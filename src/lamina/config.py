"""Settings: typed dataclasses filled from layers, every fault reported at once.

Defaults < recipe < the user's YAML < ``--set a.b=c``. Unknown keys are refused with their full path and the
nearest known one. Nothing is read from environment variables.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from lamina.errors import ConfigError

T = TypeVar("T")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        ConfigError: It is missing, not YAML, or not a mapping of names to values.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: holds a {type(data).__name__}, a mapping of settings is needed."
        )
    return data


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Turn ``["optimizer.lr=1e-3", "epochs=5"]`` into nested settings; values are read as YAML.

    Raises:
        ConfigError: An entry is not of the form ``a.b=value``.
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f"--set {setting!r}: must read name=value, such as optimizer.lr=0.001."
            )
        branch = tree
        for key in keys[:-1]:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise ConfigError(
                    f"--set {setting!r}: {key!r} was set to a value by an earlier --set."
                )
        branch[keys[-1]] = yaml.safe_load(text)
    return tree


def resolve(schema: type[T], *layers: Mapping[str, Any]) -> T:
    """Build ``schema`` (a dataclass, possibly of dataclasses) from layers, later ones winning.

    Raises:
        ConfigError: Unknown keys, wrong types, values out of range: all of them, one line each.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer)
    settings, wrong = _validate(schema, merged)
    faults = [*_unknown_keys(schema, merged, ""), *wrong]
    if settings is not None and not faults:
        return settings
    listed = "\n".join(f"  - {fault}" for fault in faults)
    plural = "setting is" if len(faults) == 1 else "settings are"
    raise ConfigError(f"{len(faults)} {plural} wrong:\n{listed}")


def _validate(schema: type[T], data: Mapping[str, Any]) -> tuple[T | None, list[str]]:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(schema).validate_python(data), []
    except ValidationError as error:
        return None, [_describe(fault) for fault in error.errors(include_url=False)]


def _describe(fault: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] in ("missing", "value_error") or isinstance(fault.get("input"), dict):
        return f"{path}: {message}" if path else message
    return f"{path} = {fault['input']!r}: {message}"


def _unknown_keys(schema: type[Any], data: Mapping[str, Any], prefix: str) -> Iterable[str]:
    known = get_type_hints(schema)
    names = [field.name for field in fields(schema)]
    for key, value in data.items():
        path = f"{prefix}{key}"
        if key not in names:
            near = get_close_matches(str(key), names, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(names)}"
            yield f"{path}: unknown; {hint}"
        elif is_dataclass(known[key]) and isinstance(value, Mapping):
            yield from _unknown_keys(known[key], value, f"{path}.")  # type: ignore[arg-type]


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
