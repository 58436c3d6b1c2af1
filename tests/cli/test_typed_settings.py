"""Settings as people type them on the command line."""

from dataclasses import dataclass, field

import pytest

from lamina.cli.settings import parse_grid, parse_overrides, settings_from
from lamina.config import resolve
from lamina.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class Stage:
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(frozen=True, kw_only=True)
class Settings:
    epochs: int = 100
    name: str = "run"
    optimizer: Optimizer = field(default_factory=Optimizer)
    stage: Stage = field(default_factory=Stage)
    spacing: tuple[float, ...] | None = None


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3),
        ("optimizer.lr=5E-05", "optimizer.lr", 5e-5),
        ("epochs=7", "epochs", 7),
        ("name=a=b", "name", "a=b"),
        ("name='7'", "name", "7"),
        ("spacing=[1, 1.5, 2e0]", "spacing", (1.0, 1.5, 2.0)),
        ("spacing=null", "spacing", None),
        ("optimizer={lr: 2.0}", "optimizer.lr", 2.0),
        ("stage.optimizer.betas=[0.1,0.2]", "stage.optimizer.betas", (0.1, 0.2)),
    ],
)
def test_set_reaches_any_setting(text, path, value):
    found = resolve(Settings, parse_overrides([text]))
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_several_sets_add_up_and_the_last_wins():
    assert parse_overrides(["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}
    assert parse_overrides(["a=named", "a.b=3"]) == {"a": {"preset": "named", "b": 3}}


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        (["epochs"], "must read name=value"),
        (["=3"], "must read name=value"),
        (["a..b=3"], "must read name=value"),
        ([".a=3"], "must read name=value"),
        (["a=[1,"], r"'\[1,' is not a YAML value"),
        (["a=!!python/object/apply:os.getcwd []"], "is not a YAML value"),
    ],
)
def test_a_malformed_set_is_refused(given_settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_overrides(given_settings)


def test_a_command_is_laid_over_the_file_and_that_over_the_recipe(tmp_path):
    recipe, config = tmp_path / "recipe.yaml", tmp_path / "config.yaml"
    recipe.write_text("a: 1\nb: 1\nc: 1\nd: 1\nstrict_paper: {a: 2, b: 2}\n")
    config.write_text("b: 3\nc: 3\nd: 3\n")
    found = settings_from(
        recipe=str(recipe),
        strict_paper=True,
        config=config,
        flags={"a": None, "c": 4, "d": 4},
        overrides=["d=5"],
    )
    assert found == {"a": 2, "b": 3, "c": 4, "d": 5}
    assert settings_from() == {}
    with pytest.raises(ConfigError, match="--strict-paper: needs a --recipe"):
        settings_from(strict_paper=True, config=config)


def test_a_grid_names_the_values_of_each_setting():
    texts = ["optimiser.lr=1e-3,3e-3", "patch_size=[16, 16],[32, 32]", "epochs=5"]
    assert parse_grid(texts) == {
        "optimiser.lr": ["1e-3", "3e-3"],
        "patch_size": [[16, 16], [32, 32]],
        "epochs": [5],
    }


@pytest.mark.parametrize("text", ["lr", "lr=", "=1", "a..b=1", "lr=[1", "epochs=1"])
def test_a_grid_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match="must read name=value,value"):
        parse_grid(["epochs=5", text])
