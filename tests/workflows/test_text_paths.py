"""Files and folders may be given as text to every function that users call from Python."""

import inspect
from pathlib import Path
from typing import get_args

import pytest

import lamina
from lamina.workflows.explain import explain
from lamina.workflows.export import export
from lamina.workflows.pretrain import pretrain
from lamina.workflows.sweep import sweep

SCAN, LABELS = "dataset/imagesTr/ball_000.nii.gz", "dataset/labelsTr"
ONE_STEP = {"epochs": 1, "steps_per_epoch": 1}
SMALL = {
    "vit": {"token_size": 8, "width": 12, "depth": 1, "num_heads": 6},
    "views": {"global_size": 16, "local_size": 8},
    **{"num_outputs": 16, "head_width": 8, "batch_size": 16, "epochs": 1, "collapse_patience": 0},
}


def compare():
    for name in ("a", "b"):
        lamina.evaluate(LABELS, LABELS, out=name, metrics=["dice"])
    lamina.compare({"a": ["a"], "b": ["b/scores.json"]}, "out")


CALLS = {
    "prepare": lambda: lamina.prepare(
        "dataset", "out", splits="work/splits.json", ram_bytes=4e9, workers=0, rehearse=False
    ),
    "train": lambda: lamina.train("work", "out", ONE_STEP, start="run/model.lamina"),
    "cross_validate": lambda: lamina.cross_validate(
        "work", "out", ONE_STEP, start="run/model.lamina"
    ),
    "sweep": lambda: sweep("work", "out", ONE_STEP),
    "pretrain": lambda: pretrain("work", "out", SMALL),
    "predict": lambda: lamina.predict("run", SCAN, out="out"),
    "predict of its own": lambda: lamina.predict("run", split="val", out="out"),
    "evaluate": lambda: lamina.evaluate(LABELS, LABELS, out="out", metrics=["dice"]),
    "compare": compare,
    "explain": lambda: explain("run", SCAN, "out", method="uncertainty"),
    "export": lambda: export("run", "monai", "out", check=SCAN),
    "load": lambda: lamina.load("run"),
    "files": lambda: lamina.write_volume(lamina.read_volume(SCAN), "out.nii"),
}
WRITE_NOTHING = {"load"}


@pytest.fixture
def inputs(tiny_dataset, tiny_work, tiny_run, tmp_path, monkeypatch):
    """A working folder in which scans, prepared cases and a run lie."""
    for name, folder in (("dataset", tiny_dataset), ("work", tiny_work), ("run", tiny_run)):
        (tmp_path / name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("name", CALLS)
def test_paths_may_be_text(name, tmp_path):
    CALLS[name]()
    assert bool([*tmp_path.glob("out*")]) == (name not in WRITE_NOTHING)


@pytest.mark.parametrize("name", [name for name in lamina.__all__ if name[0] != "_"])
def test_where_a_public_function_takes_a_path_it_takes_text(name):
    taken = [
        each.annotation for each in inspect.signature(getattr(lamina, name)).parameters.values()
    ]
    assert Path not in taken
    assert all(str in get_args(kinds) for kinds in taken if Path in get_args(kinds))
