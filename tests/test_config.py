"""Settings: precedence, types, and every fault in one message."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lamina.config
from lamina.config import (
    layered,
    load_recipe,
    load_yaml,
    parse_overrides,
    resolve,
    settings_from,
)
from lamina.data.plan import Plan
from lamina.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"lr must be positive, it is {self.lr}.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    epochs: int = 10
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=0.5))


@dataclass(frozen=True, kw_only=True)
class Settings:
    epochs: int = 100
    name: str = "run"
    optimizer: Optimizer = field(default_factory=Optimizer)
    stage: Stage = field(default_factory=Stage)
    warm_up: Stage | None = None
    stages: list[Stage] = field(default_factory=list)
    spacing: tuple[float, ...] | None = None


def _faults(*layers) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(Settings, *layers)
    count, *lines = str(caught.value).splitlines()
    assert count.startswith(f"{len(lines)} setting")
    return lines


def test_without_layers_the_defaults_stand():
    assert resolve(Settings) == Settings()


numbers = st.integers(1, 10**6)
layers = st.fixed_dictionaries(
    {},
    optional={
        "epochs": numbers,
        "optimizer": st.fixed_dictionaries({}, optional={"lr": st.floats(1e-9, 1e3)}),
        "stage": st.fixed_dictionaries({}, optional={"epochs": numbers}),
    },
)


@settings(deadline=None)
@given(st.lists(layers, max_size=4))
def test_the_last_layer_that_names_a_setting_wins(given_layers):
    found = resolve(Settings, *given_layers)
    expected = asdict(Settings())
    for layer in given_layers:
        expected["epochs"] = layer.get("epochs", expected["epochs"])
        expected["optimizer"] |= layer.get("optimizer", {})
        expected["stage"] |= layer.get("stage", {})
    assert asdict(found) == expected


def test_a_layer_that_sets_one_nested_value_keeps_what_the_schema_presets_beside_it():
    found = resolve(Settings, {"stage": {"optimizer": {"betas": (0.5, 0.6)}}})
    assert found.stage.optimizer == Optimizer(lr=0.5, betas=(0.5, 0.6))


def test_layers_are_left_as_they_were():
    lower, upper = {"optimizer": {"lr": 1.0}}, {"optimizer": {"betas": [0.1, 0.2]}}
    resolve(Settings, lower, upper)
    assert lower == {"optimizer": {"lr": 1.0}}
    assert upper == {"optimizer": {"betas": [0.1, 0.2]}}


def test_every_fault_is_reported_at_once():
    lines = _faults(
        {"epochs": "many", "optimizer": {"lr": -1.0}, "spacing": [1, "wide"]},
        {"stage": {"epoch": 5}, "warm_up": {"optimizer": {"lrr": 1}}, "sed": 3},
        {"stages": [{"epochs": 1}, {"epocs": 2}]},
    )
    assert len(lines) == 7
    for expected in (
        "epochs = 'many': Input should be a valid integer",
        "optimizer: lr must be positive, it is -1.0.",
        "spacing.1 = 'wide': Input should be a valid number",
        "stage.epoch: unknown; did you mean stage.epochs?",
        "warm_up.optimizer.lrr: unknown; did you mean warm_up.optimizer.lr?",
        "sed: unknown; known: epochs, name, optimizer",
        "stages.1.epocs: unknown; did you mean stages.epochs?",
    ):
        assert any(expected in line for line in lines), (expected, lines)


def test_a_key_at_the_wrong_level_is_pointed_to_its_place():
    assert _faults({"betas": [0.9, 0.99]}) == ["  - betas: unknown; did you mean optimizer.betas?"]


words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(
    key=words.filter(lambda word: word not in {"epochs", "optimizer", "lr", "betas", "name"}),
    parent=st.sampled_from(
        [
            (),
            ("optimizer",),
            ("stage",),
            ("stage", "optimizer"),
            ("warm_up",),
            ("warm_up", "optimizer"),
        ]
    ),
)
def test_an_unknown_key_is_always_refused_with_its_full_path(key, parent):
    layer = {key: 1}
    for part in reversed(parent):
        layer = {part: layer}
    lines = _faults(layer)
    assert len(lines) == 1
    assert lines[0].startswith(f"  - {'.'.join((*parent, key))}: unknown; ")


def test_keys_that_are_no_text_and_branches_that_are_no_mapping_are_refused():
    assert _faults({1: 2})[0].startswith("  - 1: unknown; known: epochs")
    assert "optimizer = 5" in _faults({"optimizer": 5})[0]


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


def test_layers_are_merged_name_by_name():
    merged = layered({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}, {"d": {"e": 6}})
    assert merged == {"a": {"b": 5, "c": 2}, "d": {"e": 6}}


def test_recipes_are_shipped_or_files_of_ones_own(tmp_path):
    assert load_recipe("demo")
    own = tmp_path / "own.yaml"
    own.write_text("epochs: 3\n")
    assert load_recipe(str(own)) == {"epochs": 3}
    with pytest.raises(ConfigError, match=r"recipe 'demos': unknown; did you mean demo"):
        load_recipe("demos")
    with pytest.raises(ConfigError, match=r"recipe 'x': unknown; known: .*demo.*ending in \.yaml"):
        load_recipe("x")


def test_a_recipe_has_two_sections_that_are_no_settings(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "recipe: {title: Mine}\nepochs: 3\noptimizer: {lr: 1.0}\n"
        "strict_paper: {optimizer: {betas: [0.1, 0.2]}}\n"
    )
    assert load_recipe(str(own)) == {"epochs": 3, "optimizer": {"lr": 1.0}}
    strict = load_recipe(str(own), strict_paper=True)
    assert strict == {"epochs": 3, "optimizer": {"lr": 1.0, "betas": [0.1, 0.2]}}
    own.write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match=r"--strict-paper: recipe .* has no section strict_paper"):
        load_recipe(str(own), strict_paper=True)
    own.write_text("strict_paper: yes\n")
    with pytest.raises(ConfigError, match="its section 'strict_paper' must be a mapping"):
        load_recipe(str(own))


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


def test_every_shipped_recipe_holds_valid_settings():
    from lamina.training.config import TrainConfig

    recipes = Path(lamina.config.__file__).parent / "recipes"
    names = [path.stem for path in recipes.glob("*.yaml")]
    assert names
    for name in names:
        resolve(TrainConfig, load_recipe(name))


def test_yaml_files_are_read(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("epochs: 5\noptimizer:\n  lr: 1e-2\n")
    assert resolve(Settings, load_yaml(path)).optimizer.lr == 0.01
    path.write_text("# nothing yet\n")
    assert load_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "holds a list, a mapping of settings is needed"),
        (b"a: [1\n", "not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("layer", [[], 5, None, "x"])
def test_what_is_no_mapping_is_refused(layer):
    with pytest.raises(ConfigError, match="not settings"):
        resolve(Plan, layer)
