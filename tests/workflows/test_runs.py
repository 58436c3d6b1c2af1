"""Runs are compared by facts that are right, and damage to one is no harm to the others."""

import json
import os
import platform
import shutil

import psutil
import pytest

from lamina.errors import TrainingError
from lamina.files import read_json, write_json
from lamina.folders.run import RunFolder
from lamina.workflows.runs import compare_runs

EPOCHS = [
    {"epoch": 0, "step": 3, "elapsed_s": 5.0, "dice": 0.2, "waiting": 0.1},
    {"epoch": 1, "step": 6, "elapsed_s": 9.0, "dice": 0.7, "waiting": 0.3},
    {"epoch": 2, "step": 9, "elapsed_s": 14.0, "dice": 0.6, "waiting": 0.2},
]


@pytest.fixture
def make(tiny_run, tmp_path):
    """Return what makes a run of three epochs, other in this or that."""

    def made(name, epochs=EPOCHS, without=(), config=None, **manifest):
        run = RunFolder(tmp_path / "runs" / name)
        run.root.mkdir(parents=True)
        content = read_json(tiny_run / "manifest.json") | manifest
        content["config"] = content["config"] | {"epochs": 4} | (config or {})
        for key in without:
            del content[key]
        write_json(run.manifest_file, content)
        run.history_file.write_text("".join(json.dumps(line) + "\n" for line in epochs))
        return run

    return made


def only(found):
    assert not found.unreadable
    (run,) = found.runs
    return run


def process(**other):
    mine = psutil.Process()
    me = {"host": platform.node(), "pid": mine.pid, "started": mine.create_time()}
    return me | other


def test_a_run_that_was_trained_is_told_as_it_was(tiny_run):
    found = compare_runs([tiny_run])
    run, manifest = only(found), read_json(tiny_run / "manifest.json")
    assert (run.name, run.network, run.data, run.fold) == ("run", "lightmedseg", "Tiny", 0)
    assert (run.epochs, run.planned_epochs, run.steps, run.best_epoch) == (1, 1, 3, 0)
    for fact in ("best_dice", "seconds", "waiting"):
        assert getattr(run, fact) == manifest["outcome"][fact]
    assert (run.state, run.why) == ("finished", "")
    assert found.differing == {}


def test_a_run_under_way_is_told_from_its_history(make):
    run = only(compare_runs([make("a", without=["outcome"], process=process()).root]))
    assert (run.epochs, run.planned_epochs, run.steps, run.seconds) == (3, 4, 9, 14.0)
    assert (run.best_dice, run.best_epoch) == (0.7, 1)
    assert run.waiting == pytest.approx(0.2)
    assert run.state == "running"


def test_a_run_before_its_first_epoch_has_no_dice_yet(make):
    run = only(compare_runs([make("a", epochs=[], without=["outcome"], process=process()).root]))
    assert (run.best_dice, run.best_epoch, run.epochs, run.steps) == (None, None, 0, 0)


def test_the_best_epoch_is_the_one_that_was_kept(make):
    iou = [line | {"iou": value} for line, value in zip(EPOCHS, (0.1, 0.2, 0.5), strict=True)]
    run = only(compare_runs([make("a", epochs=iou, config={"select_by": "iou"}).root]))
    assert (run.best_epoch, run.best_dice) == (2, 0.6)


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"process": process(pid=2**22 - 1)}, "killed"),
        ({"process": process(started=1.0)}, "killed"),  # another program has its number now
        ({"process": process(host="elsewhere")}, "running"),
        ({"outcome": {"state": "stopped", "why": "SIGINT"}}, "stopped"),
    ],
)
def test_the_state_is_that_of_the_process(make, changed, state):
    without = () if "outcome" in changed else ["outcome"]
    assert only(compare_runs([make("a", without=without, **changed).root])).state == state


def test_a_run_elsewhere_that_has_long_been_silent_was_killed(make):
    run = make("a", without=["outcome"], process=process(host="elsewhere"))
    for file in (run.manifest_file, run.history_file):
        os.utime(file, (1e9, 1e9))
    assert only(compare_runs([run.root])).state == "killed"


def test_only_settings_that_differ_are_told_and_younger_ones_count_by_their_default(make):
    make("a")
    make("b", config={"seed": 3, "optimiser": {"lr": 0.5}})
    old = make("c")
    manifest = old.manifest()
    del manifest["config"]["balance"]
    write_json(old.manifest_file, manifest)
    found = compare_runs([old.root.parent])
    assert [run.name for run in found.runs] == ["a", "b", "c"]
    assert found.differing == {
        "optimiser.lr": {"a": 0.006, "b": 0.5, "c": 0.006},
        "seed": {"a": 0, "b": 3, "c": 0},
    }


def test_other_data_and_plans_are_settings_too(make):
    first = make("a").manifest()
    make(
        "b",
        hashes=first["hashes"] | {"splits.json": "f" * 64},
        plan=first["plan"] | {"target_spacing": [2.0, 2.0, 2.0]},
        start={"model": "e" * 64},
    )
    differing = compare_runs([make("c").root.parent]).differing
    assert differing["data.splits.json"]["b"] == "f" * 8
    assert differing["plan.target_spacing"]["b"] == [2.0, 2.0, 2.0]
    assert differing["start"] == {"a": None, "b": "e" * 8, "c": None}


def test_the_best_comes_first_within_data_and_fold(make):
    make("a", fold=1)
    make("b", epochs=EPOCHS[:1])
    make("deep/er/c")
    found = compare_runs([make("d", epochs=[]).root.parent])
    assert [run.name for run in found.runs] == ["deep/er/c", "b", "d", "a"]


def test_a_run_given_twice_is_told_once_and_equal_names_become_paths(make):
    first, second = make("x/run").root, make("y/run").root
    assert len(compare_runs([first, first, first.parent]).runs) == 1
    names = {run.name for run in compare_runs([first, second]).runs}
    assert names == {str(first), str(second)}


def cut_manifest(run):
    text = run.manifest_file.read_text()
    run.manifest_file.write_text(text[: len(text) // 2])


def no_manifest(run):
    run.manifest_file.unlink()


def manifest_of(content):
    return lambda run: run.manifest_file.write_text(content)


def history_of(content):
    return lambda run: run.history_file.write_bytes(content)


def unknown_setting(run):
    manifest = run.manifest()
    manifest["config"]["sed"] = 1
    write_json(run.manifest_file, manifest)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (cut_manifest, "not valid JSON"),
        (no_manifest, "holds no training run"),
        (manifest_of("[]"), "is not what train writes"),
        (manifest_of("{}"), "is not what train writes (KeyError: 'config')"),
        (manifest_of('{"config": 7}'), "is not what train writes"),
        (unknown_setting, "sed: unknown"),
        (
            history_of(b'{"epoch": 0, "step": 3, "dice": 0.5, "elapsed_s": 1}\n{"epo'),
            "line 2 is no",
        ),
        (history_of(b'{"epoch": 0}\n'), "line 1 is no record"),
        (history_of(b"[1, 2]\n"), "line 1 is no record"),
        (history_of(b"\xff\xfe\n"), "cannot be read"),
    ],
)
def test_a_damaged_run_is_named_with_its_fault_and_the_others_are_told(make, damage, fault):
    make("good")
    bad = make("bad")
    damage(bad)
    found = compare_runs([bad.root.parent])
    assert [run.name for run in found.runs] == ["good"]
    ((folder, why),) = found.unreadable.items()
    assert folder == str(bad.root)
    assert fault in why


def test_places_without_runs_are_refused(tmp_path, tiny_work):
    with pytest.raises(TrainingError, match="none: no such folder"):
        compare_runs([tmp_path / "none"])
    with pytest.raises(TrainingError, match="holds no training run"):
        compare_runs([tmp_path, tiny_work])


def test_runs_of_pretraining_are_passed_over(make):
    make("train")
    make("pretrain", attention={}, without=["network"])
    assert only(compare_runs([make("x").root.parent / "train"])).name == "train"
    shutil.rmtree(make("y").root)
    assert {run.name for run in compare_runs([make("z").root.parent]).runs} == {"train", "x", "z"}


def test_the_folds_of_a_cross_validation_are_its_runs(make):
    for fold in (0, 1):
        run = make(f"cv/fold_{fold}", fold=fold)
    whole = run.root.parent
    write_json(whole / "manifest.json", {"fold": "all", "trained": {"0": 0.7}})
    for place, above in ((whole, ""), (whole.parent, "cv/")):
        found = compare_runs([place])
        assert not found.unreadable
        assert [run.name for run in found.runs] == [f"{above}fold_0", f"{above}fold_1"]


def test_the_verb_lists_damage_and_says_so_by_its_status(cli, make):
    make("good", config={"seed": 3})
    make("better", outcome={"state": "stopped", "why": "SIGINT", "seconds": 5000.0})
    done = cli("runs", make("worse", epochs=EPOCHS[:1]).root.parent)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "3 runs of lightmedseg on Tiny, fold 0" in done.stdout
    assert "better: stopped: SIGINT" in done.stdout
    assert "1 h 23 min" in done.stdout
    assert "seed" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    bad = make("bad")
    cut_manifest(bad)
    done = cli("runs", bad.root.parent)
    assert done.exit_code == 1
    assert done.stderr.startswith("Unreadable: 1\n")
    done = cli("runs", bad.root.parent, "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (1, "")
    assert {run["name"] for run in document["runs"]} == {"good", "better", "worse"}
    assert document["differing"]["seed"]["good"] == 3
    assert list(document["failures"]) == [str(bad.root)]
