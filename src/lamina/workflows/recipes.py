"""Recipes: the settings that reproduce papers, with what they promise and where they depart."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lamina.config import list_recipes as list_names
from lamina.config import load_recipe, read_recipe, resolve


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
    content = read_recipe(name)
    return Recipe(
        name=name,
        origin=resolve(Origin, {"title": name}, content.get("recipe", {})),
        settings=load_recipe(name),
        strict_paper=content.get("strict_paper"),
    )


def list_recipes(names: Sequence[str] | None = None) -> list[Recipe]:
    """Return recipes by name; all that ship with Lamina by default.

    Raises:
        ConfigError: A recipe is unknown, or its section ``recipe`` is wrong.
    """
    return [get_recipe(name) for name in names or list_names()]
