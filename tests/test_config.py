"""Settings: precedence, types, and every fault in one message."""

from dataclasses import asdict, dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.config import flat, layered, load_yaml, nested, resolve
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


def test_what_shape_a_setting_has_is_said_in_plain_words():
    lines = _faults({"optimizer": "sgd", "spacing": "1,2"})
    assert sorted(lines) == [
        "  - optimizer = 'sgd': has settings of its own: optimizer.lr, optimizer.betas",
        "  - spacing = '1,2': must be a list, in brackets",
    ]


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


def test_layers_are_merged_name_by_name():
    merged = layered({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}, {"d": {"e": 6}})
    assert merged == {"a": {"b": 5, "c": 2}, "d": {"e": 6}}


def test_dotted_names_and_nested_settings_say_the_same():
    settings = {"optimiser": {"betas": [0.9, 0.99], "decay": {"bias": 0}}, "fade": {}, "epochs": 3}
    named = {"optimiser.betas": [0.9, 0.99], "optimiser.decay.bias": 0, "fade": {}, "epochs": 3}
    assert flat(settings) == named
    assert layered(*(nested(name, value) for name, value in named.items())) == settings
    assert nested(".epochs", 5) == {"": {"epochs": 5}}  # for the reader of settings to refuse


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
