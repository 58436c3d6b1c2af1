"""What ``import lamina`` offers, and how little it costs."""

import importlib.metadata
import re
import subprocess
import sys

import pytest

import lamina
from lamina import errors

PUBLIC = [
    "Case",
    "LabelSet",
    "LaminaError",
    "Model",
    "Volume",
    "__version__",
    "build",
    "compare",
    "cross_validate",
    "evaluate",
    "load",
    "predict",
    "prepare",
    "read_volume",
    "recipe",
    "train",
    "write_volume",
]
HEAVY = [
    *("torch", "monai", "SimpleITK", "nibabel", "scipy", "pandas", "matplotlib", "lightning"),
    "ray",
]


def test_the_public_names_are_these():
    assert lamina.__all__ == PUBLIC
    assert dir(lamina) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name):
    assert getattr(lamina, name) is not None


def test_another_name_is_not():
    name = "segment"
    with pytest.raises(AttributeError, match="module 'lamina' has no attribute 'segment'"):
        getattr(lamina, name)


def test_the_version_is_the_packages():
    assert lamina.__version__ == importlib.metadata.version("lamina")


@pytest.mark.parametrize("statement", ["import lamina", "import lamina, lamina.cli"])
def test_importing_loads_nothing_heavy(statement):
    script = f"{statement}; import sys; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_every_error_is_in_the_tree_and_speaks_plainly():
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in found if kind.__module__ == errors.__name__]
    assert errors.LaminaError in kinds
    for kind in kinds:
        error = kind("a.nii: is empty.", remedy="Send it again.")
        assert isinstance(error, errors.LaminaError)
        assert str(error) == "a.nii: is empty. Send it again."
        assert error.as_dict() == {
            "error": kind.__name__,
            "message": "a.nii: is empty.",
            "remedy": "Send it again.",
        }


@pytest.mark.parametrize(
    "call",
    [
        lambda: lamina.load("busi", device="gpu"),
        lambda: lamina.predict("busi", out="out"),
        lambda: lamina.compare({"a": ["scores"]}),
        lambda: lamina.recipe("demo", strict_paper=True),
    ],
)
def test_errors_speak_of_parameters_and_not_of_options(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lamina.LaminaError) as refused:
        call()
    assert not re.search(r"\B-", str(refused.value))
