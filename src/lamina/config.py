"""Settings: typed dataclasses filled from layers, every fault reported at once.

Defaults < recipe < the user's YAML < flags < ``--set a.b=c``. Unknown keys are refused with their
full path and the nearest known one. Nothing is read from environment variables.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from lamina.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")

_RECIPES = Path(__file__).parent / "recipes"
_PRESET = "preset"


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


def list_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that ship with Lamina, sorted."""
    return tuple(sorted(path.stem for path in _RECIPES.glob("*.yaml")))


def read_recipe(name: str) -> dict[str, Any]:
    """Read a whole recipe: one that ships with Lamina, or a YAML file of one's own.

    Beside settings it may have two sections: ``recipe`` says where they come from, and
    ``strict_paper`` holds the settings that differ where a paper is followed into its slips.

    Raises:
        ConfigError: There is no such recipe, or the file or a section is not a mapping.
    """
    if name.endswith((".yaml", ".yml")):
        return _checked(name, load_yaml(Path(name)))
    known = list_recipes()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        offer = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"recipe {name!r}: unknown; {offer}, or a file ending in .yaml.")
    return _checked(name, load_yaml(_RECIPES / f"{name}.yaml"))


def load_recipe(name: str, *, strict_paper: bool = False) -> dict[str, Any]:
    """Return the settings of a recipe.

    Args:
        name: A recipe that ships with Lamina, or a YAML file of one's own.
        strict_paper: Take the published choice where the recipe mends it.

    Raises:
        ConfigError: There is no such recipe, it is not a mapping of settings, or it follows no
            paper that could be followed strictly.
    """
    settings = read_recipe(name)
    settings.pop("recipe", None)
    published = settings.pop("strict_paper", None)
    if not strict_paper:
        return settings
    if published is None:
        raise ConfigError(f"--strict-paper: recipe {name!r} has no section strict_paper.")
    if not published:
        log.warning(
            "--strict-paper: no setting of recipe %r departs from its paper; what else does is "
            "listed by lamina recipes %s.",
            name,
            name,
        )
    return layered(settings, published)


def _checked(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    for section in ("recipe", "strict_paper"):
        if not isinstance(recipe.get(section, {}), dict):
            raise ConfigError(f"recipe {name!r}: its section {section!r} must be a mapping.")
    return recipe


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Turn ``["optimiser.lr=1e-3", "epochs=5"]`` into nested settings; values are read as YAML.

    Each is laid over those before it, as :func:`layered` does.

    Raises:
        ConfigError: An entry is not of the form ``a.b=value``.
    """
    return layered(*map(_override, settings))


def _override(setting: str) -> dict[str, Any]:
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {setting!r}: must read name=value, such as optimiser.lr=0.001.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting!r}: {text!r} is not a YAML value.") from error
    *outer, name = keys
    tree: dict[str, Any] = {name: value}
    for key in reversed(outer):
        tree = {key: tree}
    return tree


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


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested settings over each other, later ones winning.

    Settings laid over the name of a preset change what it stands for.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer)
    return merged


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
        recipe: As for :func:`load_recipe`, and so is ``strict_paper``.
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
        load_recipe(recipe, strict_paper=strict_paper) if recipe else {},
        load_yaml(config) if config else {},
        {name: value for name, value in (flags or {}).items() if value is not None},
        parse_overrides(overrides or ()),
    )


def resolve(schema: type[T], *layers: Any) -> T:
    """Build ``schema`` (a dataclass, possibly of dataclasses) from layers, later ones winning.

    Settings classes check themselves in ``__post_init__`` and raise ``ConfigError`` or
    ``ValueError`` there. A nested class with a method ``named`` has presets: it may be given as a
    name, or as a mapping that has one under ``preset``.

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
