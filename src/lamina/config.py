"""Settings: typed dataclasses filled from layers, every fault reported at once.

Unknown keys are refused with their full path and the nearest known one. Nothing is read from
environment variables.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from lamina.errors import ConfigError, some

T = TypeVar("T")

_PRESET = "preset"
_WANTED = {
    "tuple_type": "must be a list, in brackets",
    "dict_type": "must be settings with names, such as {{name: value}}",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt:.10g}",
    "greater_than_equal": "must be at least {ge:.10g}",
    "less_than": "must be below {lt:.10g}",
    "less_than_equal": "must be at most {le:.10g}",
}
"""What a setting must be, by pydantic's name for what it is not."""


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


def nested(name: str, value: Any) -> dict[str, Any]:
    """Return one setting by its dotted name as nested settings: ``a.b`` as ``{a: {b: ...}}``."""
    outer, dot, inner = name.rpartition(".")
    return nested(outer, {inner: value}) if dot else {inner: value}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested settings over each other, later ones winning.

    Settings laid over the name of a preset change what it stands for.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer)
    return merged


def resolve(schema: type[T], *layers: Any) -> T:
    """Build ``schema`` (a dataclass, possibly of dataclasses) from layers, later ones winning.

    Types of fields may have ranges; settings classes check other rules in ``__post_init__`` and
    raise ``ConfigError`` or ``ValueError`` there. A nested class with a method ``named`` has
    presets: it may be given as a name, or as a mapping that has one under ``preset``.

    Raises:
        ConfigError: Unknown keys, wrong types, values out of range: all of them, one line each; or
            a layer is no mapping.
    """
    from pydantic import ConfigDict, ValidationError, create_model

    if strange := [layer for layer in layers if not isinstance(layer, Mapping)]:
        raise ConfigError(f"{strange[0]!r:.80}: not settings, which have names.")
    given, faults = _spelt_out(schema, layered(*layers))
    merged = layered(_defaults(schema), given)
    # A dataclass validated alone ignores unknown keys; as a field of such a model it refuses them.
    model = create_model("Settings", __config__=ConfigDict(extra="forbid"), settings=(schema, ...))
    try:
        settings: T = model.model_validate({"settings": merged}).__dict__["settings"]
    except ValidationError as error:
        known = list(_known_paths(schema))
        faults += [_describe(fault, known) for fault in error.errors(include_url=False)]
    if not faults:
        return settings
    plural = "setting is" if len(faults) == 1 else "settings are"
    listed = "".join(f"\n  - {fault}" for fault in faults)
    raise ConfigError(f"{len(faults)} {plural} wrong:{listed}")


def _defaults(schema: type[Any]) -> dict[str, Any]:
    """Return what a schema has inside its nested settings by default: the lowest layer."""
    defaults: dict[str, Any] = {}
    for field in fields(schema):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default) and not isinstance(default, type):
            defaults[field.name] = asdict(default)
    return defaults


def _spelt_out(schema: type[Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Put the content of presets in place of their names; return what names are wrong, too."""
    spelt, faults = dict(settings), list[str]()
    for name, hint in get_type_hints(schema).items():
        value = spelt.get(name)
        branch = {_PRESET: value} if isinstance(value, str) else value
        if not (hasattr(hint, "named") and isinstance(branch, Mapping) and _PRESET in branch):
            continue
        changes = {key: value for key, value in branch.items() if key != _PRESET}
        try:
            spelt[name] = asdict(hint.named(branch[_PRESET])) | changes
        except ConfigError as error:
            faults.append(f"{name}: {error}")
            spelt[name] = changes
    return spelt, faults


def _describe(fault: Mapping[str, Any], known: Sequence[str]) -> str:
    loc = fault["loc"][1:]
    path = ".".join(str(part) for part in loc)
    if fault["type"] in ("unexpected_keyword_argument", "invalid_key"):
        return f"{path}: unknown; {_offer(loc, known)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if wanted := _WANTED.get(fault["type"]):
        message = wanted.format(**fault.get("ctx", {}))
    if fault["type"] == "dataclass_type":
        parts = [name for name in known if name.startswith(f"{path}.")]
        message = f"has settings of its own: {some(parts, 4)}"
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
        below = merged.get(key)
        if isinstance(below, str) and isinstance(value, Mapping):
            below = {_PRESET: below}
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged
