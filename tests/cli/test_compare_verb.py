"""``lamina compare``: names, groups, tables, JSON, errors."""

import json
import re
import shutil

import numpy as np
import pytest

from lamina.evaluation.scores import Score, Scores
from lamina.labels import LabelSet

LABELS = LabelSet(values={"liver": 1})


@pytest.fixture
def scores(tmp_path, monkeypatch):
    """Four folders of scores in the current one: better/scores, worse/scores, seed_0, seed_1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    base = np.random.default_rng(0).uniform(0.6, 0.9, 10)
    shifts = {"better/scores": 0.05, "worse/scores": 0.0, "seed_0": -0.01, "seed_1": -0.03}
    for name, shift in shifts.items():
        rows = tuple(
            Score(case=f"c{i}", label="liver", metric="dice", value=float(v + shift), rule="")
            for i, v in enumerate(base)
        )
        Scores(labels=LABELS, metrics=("dice",), rows=rows).write(tmp_path / name)
    return tmp_path


def names(done):
    return [method["name"] for method in json.loads(done.stdout)["methods"]]


def test_shows_methods_pairs_and_what_to_know(cli, scores):
    done = cli("compare", "better/scores", "worse/scores", "--group", "net=seed_0,seed_1")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert lines[0] == "Dice, mean over the structures (↑ higher is better), 10 patients"
    assert "1 100 % 1 1.00" in next(line for line in lines if line.startswith("better 0."))
    assert any(line.startswith("better − worse +0.0500") and "10/0/0" in line for line in lines)
    assert any("One training of better, worse" in line for line in lines)


@pytest.mark.parametrize("width", [80, 60, 45])
def test_every_method_has_its_name_beside_its_figures_on_a_narrow_terminal(
    cli, scores, monkeypatch, width
):
    monkeypatch.setenv("COLUMNS", str(width))
    named = ("lightmedseg", "lgmsnet", "unext")
    for name, source in zip(named, ("better/scores", "worse/scores", "seed_1"), strict=True):
        shutil.copytree(scores / source, scores / f"{name}_0")
        shutil.copytree(scores / "seed_0", scores / f"{name}_1")
    done = cli("compare", *(f"--group={name}={name}_*" for name in named))
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in done.stdout
    for name in named:
        assert any(re.match(rf" {name} +0\.\d{{3}} ", line) for line in lines)
    assert any("SD of" in line for line in lines)
    assert done.stdout.count("(2)") == len(named)


def test_folders_lend_their_names_where_these_differ(cli, scores):
    assert names(cli("compare", "better/scores", "seed_0", "--json")) == ["better", "seed_0"]
    shutil.copytree(scores / "worse", scores / "other" / "better")
    done = cli("compare", "better/scores", "other/better/scores", "--json")
    assert names(done) == ["better/scores", "other/better/scores"]


def test_names_may_be_given(cli, scores):
    done = cli("compare", "better/scores", "worse/scores", "--names", "A, B", "--json")
    assert names(done) == ["A", "B"]
    for wrong in ("A", "A,A", "A,", "A,B,C"):
        done = cli("compare", "better/scores", "worse/scores", "--names", wrong)
        assert done.exit_code == 2
        assert re.search("must be (2 different )?names", done.stderr)


@pytest.mark.parametrize("pattern", ["seed_*", "seed_0,seed_1", "seed_[01]"])
def test_seeds_are_grouped_by_list_or_pattern(cli, scores, pattern):
    for group in (pattern, ",".join(str(scores / part) for part in pattern.split(","))):
        done = cli("compare", "better/scores", "--group", f"net={group}", "--json")
        assert names(done) == ["better", "net"]
        assert len(json.loads(done.stdout)["methods"][1]["seeds"]["means"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--group", "net"], "must be a name and folders"),
        (["--group", "=seed_0"], "must be a name and folders"),
        (["--group", "net=none_*"], "nothing is called none_*"),
        (["--group", "better=seed_0"], "two methods have this name"),
        ([], "at least two methods"),
        (["better/scores/scores.json", "--names", "a,b"], "given twice"),
        (["seed_0", "--metric", "hd95"], "metric hd95: is not in"),
        (["seed_0", "better/scores/"], "better/scores: given twice. Give each"),
        (["nowhere"], "no such file or folder"),
    ],
)
def test_what_is_wrong_is_said_once_and_nothing_is_written(cli, scores, arguments, said):
    done = cli("compare", "better/scores", *arguments, "--out", "out")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert said in " ".join(done.stderr.split())
    assert not (scores / "out").exists()


def test_out_is_a_folder_of_figures(cli, scores):
    methods = ("better/scores", "worse/scores")
    done = cli("compare", *methods, "--out", "out", "--quiet")
    assert (done.exit_code, done.output) == (0, "")
    assert json.loads(cli("compare", *methods, "--out", "out", "--json").stdout)["out"] == "out"
    assert json.loads(cli("compare", *methods, "--json").stdout)["out"] is None
    assert {"compare.json", "compare.md", "compare.tex"} <= {
        p.name for p in (scores / "out").iterdir()
    }
