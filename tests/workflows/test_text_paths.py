"""Files and folders may be given as text to every function that users call from Python."""

import inspect
import shutil
from pathlib import Path
from typing import get_args

import pytest

import lamina
from lamina.workflows.attention_maps import draw_maps
from lamina.workflows.bench import bench
from lamina.workflows.demo import demo
from lamina.workflows.doctor import doctor
from lamina.workflows.explain import explain
from lamina.workflows.export import export
from lamina.workflows.fetch import fetch
from lamina.workflows.import_weights import import_weights
from lamina.workflows.mesh import mesh
from lamina.workflows.pacs.transfer import pull, push
from lamina.workflows.pacs.watch import status, watch
from lamina.workflows.plan import read_plan, replan
from lamina.workflows.pretrain import pretrain
from lamina.workflows.report import report
from lamina.workflows.runs import compare_runs
from lamina.workflows.serve import serve
from lamina.workflows.study import study
from lamina.workflows.sweep import sweep
from lamina.workflows.to_nnunet import to_nnunet
from lamina.workflows.view import served, view

FUNCTIONS = [getattr(lamina, name) for name in lamina.__all__ if name[0] != "_"] + [
    *(bench, compare_runs, demo, doctor, draw_maps, explain, export, fetch, import_weights, mesh),
    *(pretrain, pull, push, read_plan, replan, report, serve, served, status, study, sweep),
    *(to_nnunet, view, watch),
]
SCAN, LABELS = "dataset/imagesTr/ball_000.nii.gz", "dataset/labelsTr"
LABEL = f"{LABELS}/ball_000.nii.gz"
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


def draw():
    pretrain("work", "vit", SMALL)
    shutil.copytree("work", "out")
    assert draw_maps("out", "vit", size=16).drawn


def view_of():
    with served(SCAN, LABEL) as server:
        assert server.url


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
    "draw_maps": draw,
    "mesh": lambda: mesh(LABEL, "out.stl"),
    "doctor": lambda: doctor("dataset", fix="out", report="out_page", workers=0),
    "to_nnunet": lambda: to_nnunet("dataset", "out/Dataset001_Balls"),
    "report": lambda: report("run", "out.html", markdown="out.md", latex="out.tex"),
    "read_plan": lambda: read_plan("work"),
    "compare_runs": lambda: compare_runs(["run"]),
    "study": lambda: study(
        "lightmedseg/table4", "work", "none", rows=["full"], epochs=1, dry_run=True
    ),
    "view": view_of,
    "files": lambda: lamina.write_volume(lamina.read_volume(SCAN), "out.nii"),
}
WRITE_NOTHING = {"load", "read_plan", "compare_runs", "study", "view"}


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


def takes_no_text(hint):
    """Tell whether a type has a path somewhere, and no text beside it."""
    kinds = get_args(hint)
    return hint is Path or (str not in kinds and any(map(takes_no_text, kinds)))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_where_a_function_takes_a_path_it_takes_text(function):
    if function is not lamina.Case:  # what it holds is read from disk
        hints = [each.annotation for each in inspect.signature(function).parameters.values()]
        assert not [*filter(takes_no_text, hints)]
