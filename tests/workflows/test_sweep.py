"""A sweep trains every combination, survives what befalls single runs, and compares."""

import json
import os
import shutil
import signal
from statistics import fmean, stdev

import pytest
from torch.testing import assert_close

from lamina.bundle import load_bundle
from lamina.errors import ConfigError, DatasetError
from lamina.files import read_json, write_json
from lamina.folders.run import RunFolder, read_history
from lamina.workflows import sweep as workflow
from lamina.workflows.sweep import sweep
from lamina.workflows.train import finish_run

SETTINGS = {
    "model_options": {
        **{"anchors": False, "lspm": False, "router": False},
        "channels": [4, 4, 4, 4, 8],
    },
    "optimiser": {"ema_decay": 0.8},
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 2,
    "epochs": 2,
}
GRID = {"optimiser.lr": [0.01, "3e-2"]}


@pytest.fixture(scope="module")
def swept(tiny_work, tmp_path_factory):
    """Two rates, two seeds, two folds; read only."""
    out = tmp_path_factory.mktemp("sweeps") / "sweep"
    told = []
    result = sweep(
        *(tiny_work, out, SETTINGS),
        grid=GRID,
        seeds=[0, 1],
        folds=[0, 1],
        progress=lambda *done: told.append(done),
    )
    assert [done for done, _, _ in told] == list(range(9))
    return result


def weights_of(sweep_folder, name):
    return load_bundle(RunFolder(sweep_folder / name).bundle_file).weights


def test_every_combination_is_an_ordinary_run(swept):
    names = {path.name for path in swept.out.iterdir() if path.is_dir()}
    assert names == {
        f"optimiser.lr={lr}_seed={seed}_fold={fold}"
        for lr in ("0.01", "3e-2")
        for seed in (0, 1)
        for fold in (0, 1)
    }
    manifest = RunFolder(swept.out / "optimiser.lr=3e-2_seed=1_fold=0").manifest()
    assert (manifest["config"]["optimiser"]["lr"], manifest["seed"], manifest["fold"]) == (
        *(0.03, 1),
        0,
    )


def test_the_table_is_over_folds_then_seeds(swept):
    assert [row.mean_dice for row in swept.rows] == sorted(
        (row.mean_dice for row in swept.rows), reverse=True
    )
    (row,) = [row for row in swept.rows if row.settings == {"optimiser.lr": 0.01}]
    dice = {(run.seed, run.fold): run.best_dice for run in swept.runs if "=0.01_" in run.name}
    seeds = [fmean(dice[seed, fold] for fold in (0, 1)) for seed in (0, 1)]
    assert (row.runs, row.finished) == (4, 4)
    assert row.mean_dice == pytest.approx(fmean(seeds))
    assert row.sd_dice == pytest.approx(stdev(seeds))
    assert row.best_dice == max(dice.values())
    history = read_history(RunFolder(swept.out / "optimiser.lr=0.01_seed=1_fold=1"))
    assert dice[1, 1] == max(line["dice"] for line in history)
    assert (
        read_json(swept.out / "sweep.json")["rows"]
        == json.loads(json.dumps(swept.as_dict()))["rows"]
    )


def test_what_is_finished_is_left_alone_and_more_can_be_asked_for(swept, tiny_work, tmp_path):
    out = tmp_path / "sweep"
    shutil.copytree(swept.out, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    again = sweep(tiny_work, out, SETTINGS, grid=GRID, seeds=[1, 2], folds=[1])
    assert {run.name for run in again.runs} - {run.name for run in swept.runs} == {
        f"optimiser.lr={lr}_seed=2_fold=1" for lr in ("0.01", "3e-2")
    }
    changed = {path.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"sweep.json"}
    assert read_json(out / "sweep.json")["finished"].keys() >= {run.name for run in swept.runs}


def test_a_run_that_fails_is_listed_and_the_others_go_on(tiny_work, tmp_path):
    grid = {"optimiser.lr": [0.01]}
    sweep(tiny_work, tmp_path / "sweep", SETTINGS, grid=grid)
    (tmp_path / "sweep" / "optimiser.lr=0.02_seed=0_fold=0").write_text("in its way")
    result = sweep(tiny_work, tmp_path / "sweep", SETTINGS, grid={"optimiser.lr": [0.02, 0.01]})
    ((name, why),) = result.failures.items()
    assert name == "optimiser.lr=0.02_seed=0_fold=0"
    assert "is a file" in why
    best, failed = result.rows
    assert (best.finished, best.sd_dice) == (1, None)
    assert (failed.finished, failed.mean_dice, failed.best_dice) == (0, None, None)
    assert read_json(tmp_path / "sweep" / "sweep.json")["failures"] == result.failures


def test_a_sweep_that_is_told_to_stop_goes_on_where_it_was(swept, tiny_work, tmp_path, monkeypatch):
    out = tmp_path / "sweep"
    monkeypatch.setattr(workflow, "finish_run", signalled)
    with pytest.raises(KeyboardInterrupt):
        sweep(tiny_work, out, SETTINGS, grid=GRID)
    monkeypatch.undo()
    assert read_json(out / "sweep.json")["finished"] == {}
    result = sweep(tiny_work, out, SETTINGS, grid=GRID)
    assert not result.failures
    for run in result.runs:
        ours, theirs = weights_of(out, run.name), weights_of(swept.out, run.name)
        assert_close(ours, theirs, rtol=0, atol=0)


def signalled(*arguments):
    def on_step(step, *_):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    return finish_run(*arguments, on_step=on_step)


def test_a_worker_killed_in_the_middle_costs_nothing_but_time(
    swept, tiny_work, tmp_path, monkeypatch
):
    """Kill -9 between checkpoint and end: the run goes on, to the weights of a run left alone."""
    pytest.importorskip("ray")
    killed, out = tmp_path / "killed", tmp_path / "sweep"

    def killed_once(work, run, settings, fold):
        def on_step(step, *_):
            if step == 3 and "0.01" in run.name and not killed.exists():
                assert (run / "checkpoints" / "last.ckpt").is_file()
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        return finish_run(work, run, settings, fold, on_step=on_step)

    monkeypatch.setattr(workflow, "finish_run", killed_once)
    result = sweep(tiny_work, out, SETTINGS, grid=GRID, cluster="local:1")
    assert killed.exists()
    assert not result.failures
    for run in result.runs:
        assert [line["step"] for line in read_history(RunFolder(out / run.name))] == [2, 4]
        ours, theirs = weights_of(out, run.name), weights_of(swept.out, run.name)
        assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"grid": {"optimiser.lr": [0.01, -1]}}, "lr = -1"),
        ({"grid": {"optimizer.lr": [0.01]}}, "did you mean optimiser"),
        ({"grid": {"seed": [1, 2]}}, "takes its seeds from the list"),
        ({"seeds": [1, 1]}, "seed=1_fold=0: comes twice"),
        ({"seeds": [0, -1]}, "seed = -1: must be at least 0"),
        (
            {"grid": {"optimiser.lr": ["1e-3", 0.001]}},
            "lr=0.001_.*: comes twice: optimiser.lr=1e-3",
        ),
        ({"grid": {"loss_options.smooth": [0.1, [0.1, 0.2]], "loss": ["tversky_ce"]}}, "smooth"),
        ({"grid": {"model_options.channels": [[4, 4]]}}, "channels"),
        ({"grid": {"frozen": [[], ["nothing.*"]]}}, "fits no weight of the network"),
        ({"grid": {"deep_supervision": [None, [1, 0.5]]}, "cluster": "local:1"}, "has 1 head"),
    ],
)
def test_wrong_combinations_are_refused_before_anything_is_written(
    tiny_work, tmp_path, asked, fault
):
    with pytest.raises(ConfigError, match=fault):
        sweep(tiny_work, tmp_path / "sweep", SETTINGS, **asked)
    assert not (tmp_path / "sweep").exists()


def test_folders_of_others_are_left_alone(swept, tiny_work, tmp_path):
    with pytest.raises(ConfigError, match="holds a sweep of another settings"):
        sweep(tiny_work, swept.out, SETTINGS | {"epochs": 3}, grid=GRID)
    with pytest.raises(DatasetError, match="has folds 0 to 2"):
        sweep(tiny_work, tmp_path / "sweep", SETTINGS, folds=[0, 3])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError, match="holds files that no sweep wrote"):
        sweep(tiny_work, tmp_path, SETTINGS)


def test_on_the_command_line(cli, tiny_work, tmp_path):
    base, out = tmp_path / "base.yaml", tmp_path / "sweep"
    write_json(base, SETTINGS)
    short = ["--config", base, "--set", "epochs=1"]
    asked = ["--set-grid", "optimiser.lr=1e-2,-1", "--out", out, *short]
    done = cli("sweep", tiny_work, *asked)
    assert (done.exit_code, out.exists()) == (2, False)
    done = cli("sweep", tiny_work, "--fold", "all", "--out", out, *short)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "3 of 3" in done.stdout
    done = cli("sweep", tiny_work, "--fold", "0,2", "--seeds", "0", "--out", out, *short, "--json")
    told = json.loads(done.stdout)
    assert [run["fold"] for run in told["runs"]] == [0, 2]
    assert (told["out"], told["failures"]) == (str(out), {})
    done = cli("sweep", tiny_work, "--seeds", "one", "--out", out)
    assert done.exit_code == 2
    assert "'--seeds': 'one': must be whole numbers such as 0,1,2." in done.stderr
    write_json(base, SETTINGS | {"strict_paper": {"optimiser": {"lr": -1}}})
    done = cli("sweep", tiny_work, "--recipe", base, "--strict-paper", "--out", tmp_path / "strict")
    assert "optimiser.lr = -1: must be above 0" in done.stderr
    done = cli("sweep", tiny_work, "--strict-paper", "--out", tmp_path / "strict")
    assert "--strict-paper: needs a --recipe" in done.stderr
