"""Families of named things, discovered in a package made for the occasion."""

import sys
from pathlib import Path

import pytest

from lamina.errors import UnknownNameError
from lamina.registry import Registry

INIT = """
from lamina.registry import Registry

SHAPES = Registry("shape", __name__)
"""
CIRCLE = """
from shapes_for_test import SHAPES

@SHAPES.register("circle")
def circle():
    return "round"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A package with one sibling, importable and forgotten again afterwards."""
    package = tmp_path / "shapes_for_test"
    package.mkdir()
    (package / "__init__.py").write_text(INIT)
    (package / "circle.py").write_text(CIRCLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.startswith("shapes_for_test")]:
        del sys.modules[name]


def _shapes() -> Registry:
    import shapes_for_test

    return shapes_for_test.SHAPES


def test_siblings_are_imported_at_the_first_look_up_and_not_before(folder):
    shapes = _shapes()
    assert "shapes_for_test.circle" not in sys.modules
    assert shapes.get("circle")() == "round"
    assert "shapes_for_test.circle" in sys.modules


def test_a_new_file_is_all_a_new_member_needs(folder):
    (folder / "square.py").write_text(CIRCLE.replace("circle", "square"))
    shapes = _shapes()
    assert list(shapes) == ["circle", "square"]
    assert len(shapes) == 2
    assert "square" in shapes
    assert "cube" not in shapes


def test_one_name_for_two_files_is_refused(folder):
    (folder / "disc.py").write_text(CIRCLE)
    with pytest.raises(ValueError, match="'circle' is registered twice"):
        list(_shapes())


def test_a_near_match_is_offered_and_else_everything_known(folder):
    shapes = _shapes()
    with pytest.raises(UnknownNameError, match=r"Unknown shape 'circles'\. Did you mean circle\?"):
        shapes.get("circles")
    with pytest.raises(UnknownNameError, match="Known: circle"):
        shapes.get("xyz")


def test_a_member_that_cannot_be_imported_is_never_passed_over(folder):
    (folder / "broken.py").write_text("import no_such_module_anywhere\n")
    shapes = _shapes()
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
            shapes.get("circle")
