"""All folds trained, each case scored by the model that never saw it, one ensemble left behind."""

import json
import os
import shutil
import signal
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lamina.bundle import build_network, load_bundle, save_bundle
from lamina.errors import BundleError, ConfigError, DatasetError, TrainingError
from lamina.files import read_json, sha256, write_json
from lamina.folders.model import load
from lamina.folders.run import RunFolder, read_history
from lamina.inference.postprocess import postprocess
from lamina.io import read_labels
from lamina.workflows import cross_validation
from lamina.workflows.cross_validation import cross_validate
from lamina.workflows.predict import predict
from lamina.workflows.train import train

SETTINGS = {
    "model_options": {
        **{"anchors": False, "lspm": False, "router": False},
        "channels": [4, 4, 4, 4, 8],
    },
    "optimiser": {"lr": 0.02},
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 2,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def whole(tiny_work, tmp_path_factory):
    """Three folds that nothing stopped."""
    return cross_validate(tiny_work, tmp_path_factory.mktemp("cv") / "run", SETTINGS)


@pytest.fixture(scope="module")
def tested_work(tiny_work, tmp_path_factory):
    """The same scans, two of them kept for the end and the others in two folds."""
    work = Path(shutil.copytree(tiny_work, tmp_path_factory.mktemp("tested") / "work"))
    ids = sorted(path.name for path in (work / "cases").iterdir())
    folds = [{"train": ids[2:4], "val": ids[:2]}, {"train": ids[:2], "val": ids[2:4]}]
    write_json(work / "splits.json", [fold | {"test": ids[4:]} for fold in folds])
    return work


def folds_of(work):
    return [fold["val"] for fold in read_json(work / "splits.json")]


def assert_same_models(ours, theirs):
    for name in ("fold_0", "fold_1", "fold_2", ""):
        left, right = (load_bundle(run / name / "model.lamina") for run in (ours, theirs))
        assert left.weights.keys() == right.weights.keys()
        assert all(torch.equal(left.weights[n], right.weights[n]) for n in left.weights)
        assert left.metrics == right.metrics


def test_every_case_is_segmented_once_by_the_model_that_did_not_see_it(tiny_work, whole):
    record = read_json(whole.run / "out_of_fold" / "prediction.json")
    entries = {entry["case_id"]: entry for entry in record["cases"]}
    assert len(entries) == len(record["cases"]) == 6
    for fold, cases in enumerate(folds_of(tiny_work)):
        file = whole.run / f"fold_{fold}" / "model.lamina"
        model = load(file)
        for case in cases:
            entry = entries.pop(case)
            assert entry["model"] == sha256(file)
            found = read_labels(whole.run / "out_of_fold" / entry["segmentation"])
            np.testing.assert_array_equal(found.array, model.predict(entry["image"]).array)
    assert not entries


def test_out_of_fold_segmentations_are_scored(whole):
    told = read_json(whole.run / "out_of_fold" / "scores.json")
    assert told["num_cases"] == 6
    assert told["not_predicted"] == []
    assert whole.scores.mean_foreground("dice") == told["mean_foreground"]["dice"]
    bundle = load_bundle(whole.bundle)
    assert bundle.metrics["mean_dice"] == told["mean_foreground"]["dice"]
    assert "6 cases, each by one member" in bundle.metrics["measured_on"]


def test_the_ensemble_predicts_the_mean_of_its_folds(whole, tiny_dataset):
    bundle = load_bundle(whole.run / "model.lamina")
    folds = [load_bundle(whole.run / f"fold_{n}" / "model.lamina") for n in range(3)]
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        alone = torch.stack([build_network(fold)(image) for fold in folds])
        assert torch.equal(build_network(bundle)(image), alone.mean(0))
    assert list(bundle.training["members"]) == ["fold_0", "fold_1", "fold_2"]
    found = load(whole.run).predict(tiny_dataset / "imagesTr" / "ball_000.nii.gz")
    assert set(np.unique(found.array)) <= {0, 3, 7}


def test_each_fold_is_an_ordinary_run(tiny_work, whole, tmp_path):
    train(tiny_work, tmp_path / "run", SETTINGS, fold=1)
    ours, theirs = (
        load_bundle(r / "model.lamina") for r in (whole.run / "fold_1", tmp_path / "run")
    )
    assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)
    assert RunFolder(whole.run / "fold_1").manifest()["fold"] == 1


def die_in_fold(work, out, fold, step):
    count = len(folds_of(work))

    def on_step(number, progress, *_):
        if int(progress * count - 1e-9) == fold and number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    cross_validate(work, out, SETTINGS, on_step=on_step)


def test_killed_in_the_second_fold_and_resumed_it_makes_the_same_models(
    tiny_work, whole, tmp_path, monkeypatch
):
    context = get_context("forkserver")
    context.set_forkserver_preload(["lamina.workflows.cross_validation"])
    run = tmp_path / "run"
    process = context.Process(target=die_in_fold, args=(tiny_work, run, 1, 1))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in run.iterdir()) == ["fold_0", "fold_1", "manifest.json"]
    trained = []

    def noted(work, out, *arguments, **options):
        trained.append((out.name, options["resume"]))
        return train(work, out, *arguments, **options)

    monkeypatch.setattr(cross_validation, "train", noted)
    cross_validate(tiny_work, run, resume=True)
    assert trained == [("fold_1", True), ("fold_2", False)]
    assert_same_models(run, whole.run)


def test_resuming_what_is_complete_trains_and_segments_nothing_again(tiny_work, whole, monkeypatch):
    before = whole.bundle.read_bytes()
    for name in ("cross_validation.train", "predict.predict"):
        monkeypatch.setattr(f"lamina.workflows.{name}", None)
    again = cross_validate(tiny_work, whole.run, SETTINGS, resume=True)
    assert again.scores.as_dict() == whole.scores.as_dict()
    assert whole.bundle.read_bytes() == before


def test_ctrl_c_in_one_fold_ends_all_and_resuming_goes_on(tiny_work, whole, tmp_path):
    run = tmp_path / "run"

    def on_step(step, *_):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    result = cross_validate(tiny_work, run, SETTINGS, on_step=on_step)
    assert (result.stopped_because, result.bundle, result.scores) == ("SIGINT", None, None)
    assert sorted(path.name for path in run.iterdir()) == ["fold_0", "manifest.json"]
    assert cross_validate(tiny_work, run, resume=True).stopped_because == ""
    assert_same_models(run, whole.run)


def test_a_file_called_stop_ends_all_between_folds_and_within_one(tiny_work, tmp_path):
    run = tmp_path / "run"
    stop, settings = run / "stop", SETTINGS | {"steps_per_epoch": 4}

    def ask(*about):
        stop.touch()

    result = cross_validate(tiny_work, run, settings, on_epoch=ask)
    assert (result.stopped_because, result.bundle, [*result.best_dice]) == ("stop file", None, [0])
    assert sorted(path.name for path in run.iterdir()) == ["fold_0", "manifest.json"]
    stop.touch()  # before it goes on: of no effect
    result = cross_validate(tiny_work, run, resume=True, on_step=lambda n, *_: n == 2 and ask())
    assert (result.stopped_because, result.bundle, [*result.best_dice]) == ("stop file", None, [0])
    assert not list(run.rglob("stop"))
    assert not (run / "fold_2").exists()
    fold = RunFolder(run / "fold_1")
    assert load_bundle(fold.bundle_file).training
    assert read_history(fold)[-1]["step"] == 3
    result = cross_validate(tiny_work, run, resume=True)
    assert (result.stopped_because, [*result.best_dice]) == ("", [0, 1, 2])
    assert read_history(fold)[-1]["step"] == 4
    assert result.bundle.is_file()


def test_one_failing_fold_does_not_lose_the_others(tiny_work, tmp_path, monkeypatch):
    work, run = Path(shutil.copytree(tiny_work, tmp_path / "work")), tmp_path / "run"
    case, aside = work / "cases" / folds_of(work)[0][0], tmp_path / "aside"

    def lacking(*arguments, fold, **options):
        if fold == 1:
            case.rename(aside)
        try:
            return train(*arguments, fold=fold, **options)
        finally:
            if fold == 1:
                aside.rename(case)

    with monkeypatch.context() as patched:
        patched.setattr(cross_validation, "train", lacking)
        result = cross_validate(work, run, SETTINGS)
    assert result.failures.keys() == {"fold_1"}
    assert case.name in result.failures["fold_1"]
    assert set(result.scores.not_predicted) == set(folds_of(work)[1])
    assert len(result.scores.cases) == 4
    assert load_bundle(result.bundle).num_members == 2
    completed = cross_validate(work, run, resume=True)
    assert (completed.failures, completed.scores.not_predicted) == ({}, ())
    assert load_bundle(completed.bundle).num_members == 3
    with monkeypatch.context() as patched:
        patched.setattr(cross_validation, "train", lacking)
        longer = cross_validate(work, run, {"epochs": 2}, resume=True)
    assert not {*longer.scores.cases} & {*folds_of(work)[1]}  # segmented by its earlier model
    assert set(longer.scores.not_predicted) == set(folds_of(work)[1])


def test_where_no_fold_can_be_trained_the_first_error_is_told(tiny_work, tmp_path, monkeypatch):
    def too_large(*_, **options):
        raise RuntimeError(f"out of memory in {options['fold']}\nand much more")

    monkeypatch.setattr(cross_validation, "train", too_large)
    with pytest.raises(TrainingError, match="fold_0: cannot .* machine: out of memory in 0$"):
        cross_validate(tiny_work, tmp_path / "run", SETTINGS)


def test_a_longer_schedule_goes_for_every_fold(tiny_work, whole, tmp_path):
    run = Path(shutil.copytree(whole.run, tmp_path / "run"))
    with pytest.raises(TrainingError, match="run: optimiser cannot change when a run is resumed"):
        cross_validate(tiny_work, run, {"optimiser": {"lr": 0.5}, "epochs": 2}, resume=True)
    cross_validate(tiny_work, run, {"epochs": 2}, resume=True)
    bundle = load_bundle(run / "model.lamina")
    assert [told["epochs"] for told in bundle.training["members"].values()] == [2, 2, 2]


def test_wrong_settings_are_refused_before_anything_is_written(tiny_work, tmp_path):
    for settings in ({"epoch": 3}, {"model_options": {"depth": 9}}, {"loss_options": {"a": 1}}):
        with pytest.raises(ConfigError):
            cross_validate(tiny_work, tmp_path / "run", SETTINGS | settings)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_something_else_are_left_alone(tiny_work, tiny_run, whole, tmp_path):
    for folder in (tiny_run, whole.run):
        with pytest.raises(TrainingError, match="already holds a run"):
            cross_validate(tiny_work, folder, SETTINGS)
    with pytest.raises(TrainingError, match="holds a run of one fold, not a run of every fold"):
        cross_validate(tiny_work, tiny_run, resume=True)
    with pytest.raises(TrainingError, match="holds a run of every fold, not a run of one fold"):
        train(tiny_work, whole.run, resume=True)
    with pytest.raises(TrainingError, match="holds no training run"):
        cross_validate(tiny_work, tmp_path / "none", resume=True)


def test_what_was_planned_anew_is_not_gone_on_with(tiny_work, whole, tmp_path):
    work = Path(shutil.copytree(tiny_work, tmp_path / "work"))
    write_json(work / "plan.json", read_json(work / "plan.json") | {"batch_size": 3})
    with pytest.raises(TrainingError, match="prepared or planned anew"):
        cross_validate(work, whole.run, resume=True)


def test_folds_that_share_a_validation_case_cannot_be_joined(tiny_work, tmp_path):
    work = Path(shutil.copytree(tiny_work, tmp_path / "work"))
    folds = read_json(work / "splits.json")
    for given, fault in (
        ([folds[0], folds[0]], "is validated in several"),
        (folds[:1], "only one"),
    ):
        write_json(work / "splits.json", given)
        with pytest.raises(DatasetError, match=fault):
            cross_validate(work, tmp_path / "run", SETTINGS)


def test_segmentations_of_several_models_share_a_folder_only_where_that_is_meant(whole):
    with pytest.raises(DatasetError, match="holds segmentations of other scans by another model"):
        predict(whole.run / "fold_0", out=whole.run / "out_of_fold", split="val")


def test_chosen_postprocessing_is_stored_and_applied(whole):
    """Such short training leaves stray parts everywhere, so something always helps."""
    bundle = load_bundle(whole.bundle)
    assert bundle.postprocessing == whole.postprocessing.steps != ()
    assert all(step["dice_after"] > step["dice_before"] for step in bundle.postprocessing)
    model = load(whole.run)
    steps = model.predictor.postprocessing
    assert [s.structure for s in steps] == [s["structure"] for s in bundle.postprocessing]
    scan = RunFolder(whole.run / "fold_0").cases("val")[0].read_image(bundle.plan.channels)
    raw = replace(model.predictor, postprocessing=())(scan)
    found = model.predict(scan)
    np.testing.assert_array_equal(found.array, postprocess(raw, bundle.plan.labels, steps).array)
    assert (found.array != raw.array).any()
    assert load(whole.run / "fold_0").predictor.postprocessing == ()


def test_a_bundle_with_unknown_steps_is_refused(whole, tmp_path):
    bundle = replace(load_bundle(whole.bundle), postprocessing=({"structure": "lung"},))
    save_bundle(bundle, tmp_path / "x.lamina")
    with pytest.raises(BundleError, match=r"(?s)x\.lamina: .*operation"):
        load(tmp_path / "x.lamina")


def test_prepared_slanted_scans_are_segmented_and_on_the_device_of_the_training(
    slanted_work, tmp_path, monkeypatch
):
    devices = []

    def noted(*arguments, device=None, **options):
        devices.append(device)
        return predict(*arguments, device=device, **options)

    monkeypatch.setattr("lamina.workflows.own_scans.predict", noted)
    run = tmp_path / "run"
    result = cross_validate(slanted_work, run, SETTINGS | {"device": "cpu"})
    assert result.all_failures == {}
    assert len(result.scores.cases) == 4
    assert devices == ["cpu"] * 2


def test_the_command_shows_scores_and_exits_well(cli, tested_work, tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    run = tmp_path / "run"
    options = ["--fold", "all", "--config", tmp_path / "small.yaml", "--out", run]
    done = cli("train", tested_work, *options)
    assert done.exit_code == 0, done.stderr
    assert "Best validation Dice by fold: 0: 0." in done.stdout
    assert "Scores of 4 cases" in done.stdout
    assert f"Model: {run / 'model.lamina'}, the ensemble of 2\nNext: lamina predict" in done.stdout
    told_on_the_way = [line for line in done.stderr.splitlines() if "of all folds: epoch 1" in line]
    assert [line.split()[0] for line in told_on_the_way] == ["25%", "75%"]  # of two folds of two
    again = cli("train", tested_work, *options, "--resume", "--json")
    told = json.loads(again.stdout)
    assert (told["out"], told["failures"]) == (str(run), {})
    assert told["out_of_fold"]["num_cases"] == 4
    assert cli("predict", "-m", run, "--split", "test", "-o", tmp_path / "test").exit_code == 0
    done = cli("train", tested_work, "--out", tmp_path / "x", "--fold", "some")
    assert done.exit_code == 2
    assert "from 0 nor 'all'" in " ".join(done.stderr.replace("│", " ").split())
