"""Recipes: the settings that reproduce papers, with what they promise and where they depart."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lamina.config import layered, load_yaml, resolve
from lamina.errors import ConfigError

log = logging.getLogger(__name__)

_SHIPPED = Path(__file__).parents[1] / "recipes"
_SECTIONS = ("recipe", "strict_paper")
"""What a recipe has beside settings: where they come from, and those that differ where a paper is
followed into its slips."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a recipe comes from: its section ``recipe``."""

    title: str
    paper: str = ""
    """Paper that it follows, such as ``"glims"``; empty where it is ours."""
    dataset: str = ""
    """Described dataset that the paper trained on."""
    source: str = ""
    """Where the paper prints its scores."""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metric -> ``mean`` or structure -> printed score: overlap in percent, distances in mm."""
    unpublished: str = ""
    """Why there are no scores."""
    metrics: tuple[str, ...] = ()
    """Registered metrics that the paper reports."""
    preparation: str = ""
    """How the paper prepares scans, for a plan to be held against."""
    departures: tuple[str, ...] = ()
    """What the recipe does otherwise than the paper or its code, and why."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings for ``train --recipe``, and where they come from."""

    name: str
    origin: Origin
    settings: Mapping[str, Any]
    """Fields of :class:`~lamina.training.config.TrainConfig`, nested as there."""
    strict_paper: Mapping[str, Any] | None
    """Settings that ``--strict-paper`` changes; ``None`` where no paper is followed."""

    @property
    def model(self) -> str:
        """Network preset; empty where it is the plan's."""
        return str(self.settings.get("model", ""))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def get_recipe(name: str) -> Recipe:
    """Return a recipe that ships with Lamina, or one of one's own in a YAML file.

    Raises:
        ConfigError: There is no such recipe, or its section ``recipe`` is wrong.
    """
    content = _read(name)
    return Recipe(
        name=name,
        origin=resolve(Origin, {"title": name}, content.get("recipe", {})),
        settings=recipe(name),
        strict_paper=content.get("strict_paper"),
    )


def list_recipes(names: Sequence[str] | None = None) -> list[Recipe]:
    """Return recipes by name; all that ship with Lamina by default.

    Raises:
        ConfigError: A recipe is unknown, or its section ``recipe`` is wrong.
    """
    return [get_recipe(name) for name in names or _shipped()]


def recipe(name: str | Path, *, strict_paper: bool = False) -> dict[str, Any]:
    """Return the settings of a recipe, as :func:`lamina.train` takes them.

    Args:
        name: A recipe that ships with Lamina, or a YAML file of one's own.
        strict_paper: Take the published choice where the recipe mends it.

    Raises:
        ConfigError: There is no such recipe, it is not a mapping of settings, or it follows no
            paper that could be followed strictly.
    """
    content = _read(str(name))
    settings = {key: value for key, value in content.items() if key not in _SECTIONS}
    if not strict_paper:
        return settings
    published = content.get("strict_paper")
    if published is None:
        raise ConfigError(f"strict_paper: recipe {str(name)!r} has no such section.")
    if not published:
        log.warning(
            "strict_paper: no setting of recipe %r departs from its paper; what else does is "
            "listed by lamina recipes %s.",
            str(name),
            name,
        )
    return layered(settings, published)


def _shipped() -> list[str]:
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def _read(name: str) -> dict[str, Any]:
    """Read a whole recipe, after checking that its sections are mappings."""
    if name.endswith((".yaml", ".yml")):
        content = load_yaml(Path(name))
    elif name in (known := _shipped()):
        content = load_yaml(_SHIPPED / f"{name}.yaml")
    else:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        offer = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"recipe {name!r}: unknown; {offer}, or a file ending in .yaml.")
    for section in _SECTIONS:
        if not isinstance(content.get(section, {}), dict):
            raise ConfigError(f"recipe {name!r}: its section {section!r} must be a mapping.")
    return content
