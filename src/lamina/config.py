"""Settings: typed dataclasses filled from layers, every fault reported at once.

Defaults < recipe < the user's YAML < ``--set a.b=c``. Unknown keys are refused with their full path
and the nearest known one. Nothing is read from environment variables.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

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


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe: settings that ship with Lamina under ``name``, or a YAML file of one's own.

    Raises:
        ConfigError: There is no such recipe, or the file is not a mapping of settings.
    """
    if name.endswith((".yaml", ".yml")):
        return load_yaml(Path(name))
    shipped = {path.stem: path for path in (Path(__file__).parent / "recipes").glob("*.yaml")}
    if name not in shipped:
        known = ", ".join(sorted(shipped))
        raise ConfigError(f"recipe {name!r}: unknown; known: {known}, or a file ending in .yaml.")
    return load_yaml(shipped[name])


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Turn ``["optimiser.lr=1e-3", "epochs=5"]`` into nested settings; values are read as YAML.

    Raises:
        ConfigError: An entry is not of the form ``a.b=value``, or two of them contradict.
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f"--set {setting!r}: must read name=value, such as optimiser.lr=0.001."
            )
        branch = tree
        for key in keys[:-1]:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise ConfigError(
                    f"--set {setting!r}: {key!r} was set to a value by an earlier --set."
                )
        try:
            branch[keys[-1]] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting!r}: {text!r} is not a YAML value.") from error
    return tree


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested settings over each other, later ones winning."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer)
    return merged


def resolve(schema: type[T], *layers: Mapping[str, Any]) -> T:
    """Build ``schema`` (a dataclass, possibly of dataclasses) from layers, later ones winning.

    Settings classes check themselves in ``__post_init__`` and raise ``ConfigError`` or
    ``ValueError`` there.

    Raises:
        ConfigError: Unknown keys, wrong types, values out of range: all of them, one line each.
    """
    from pydantic import ConfigDict, ValidationError, create_model

    merged = layered(_presets(schema), *layers)
    # A dataclass validated alone ignores unknown keys; as a field of such a model it refuses them.
    model = create_model("Settings", __config__=ConfigDict(extra="forbid"), settings=(schema, ...))
    try:
        settings: T = model.model_validate({"settings": merged}).__dict__["settings"]
    except ValidationError as error:
        known = list(_known_paths(schema))
        faults = [_describe(fault, known) for fault in error.errors(include_url=False)]
    else:
        return settings
    plural = "setting is" if len(faults) == 1 else "settings are"
    listed = "".join(f"\n  - {fault}" for fault in faults)
    raise ConfigError(f"{len(faults)} {plural} wrong:{listed}")


def _presets(schema: type[Any]) -> dict[str, Any]:
    """Return what a schema presets inside its nested settings: the lowest layer."""
    presets: dict[str, Any] = {}
    for field in fields(schema):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default) and not isinstance(default, type):
            presets[field.name] = asdict(default)
    return presets


def _describe(fault: Mapping[str, Any], known: Sequence[str]) -> str:
    loc = fault["loc"][1:]
    path = ".".join(str(part) for part in loc)
    if fault["type"] in ("unexpected_keyword_argument", "invalid_key"):
        return f"{path}: unknown; {_offer(loc, known)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] in ("missing", "value_error") or isinstance(fault["input"], dict):
        return f"{path}: {message}" if path else message
    return f"{path} = {fault['input']!r}: {message}"


def _offer(loc: Sequence[str | int], known: Sequence[str]) -> str:
    parent = ".".join(part for part in loc[:-1] if isinstance(part, str))
    siblings = [path for path in known if path.rpartition(".")[0] == parent]
    by_name = {path.rpartition(".")[2]: path for path in [*reversed(known), *siblings]}
    if near := get_close_matches(str(loc[-1]), by_name, n=1):
        return f"did you mean {by_name[near[0]]}?"
    return f"known: {', '.join(siblings or known)}"


def _known_paths(hint: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every setting in ``X``, ``X | None``, ``list[X]``, ..."""
    if not is_dataclass(hint):
        for part in get_args(hint):
            yield from _known_paths(part, prefix)
        return
    hints = get_type_hints(hint)
    for field in fields(hint):
        yield f"{prefix}{field.name}"
        yield from _known_paths(hints[field.name], f"{prefix}{field.name}.")


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
