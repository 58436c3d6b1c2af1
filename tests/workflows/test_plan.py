"""Plans are decided again for other budgets, and rehearsed on the prepared scans."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lamina.errors import ConfigError, DatasetError, ResourceError, UnknownNameError
from lamina.files import read_json, write_json
from lamina.folders.work import WorkFolder
from lamina.training.config import Optimiser, TrainConfig
from lamina.workflows.plan import read_plan, replan
from lamina.workflows.predict import predict
from lamina.workflows.steps import planner, preparing
from lamina.workflows.steps.rehearsal import Rehearsal, rehearse
from lamina.workflows.steps.settings import completed, configured
from lamina.workflows.train import train


@pytest.fixture
def work(tiny_work, tmp_path):
    shutil.copytree(tiny_work, tmp_path / "work")
    return tmp_path / "work"


def test_a_rehearsal_tells_what_a_step_takes(work):
    found = replan(work, model="lightmedseg", ram_bytes=4e9, device="cpu")
    assert found.plan.network == "lightmedseg"
    takes = found.plan.estimates
    # Of the whole process: far more than tensors of so small a patch, and no more than was granted.
    assert 0.2 < takes["training_memory_gb"] < 4
    assert takes["step_s"] > 0
    assert takes["epoch_s"] > takes["step_s"] * found.plan.steps_per_epoch
    assert read_plan(work).plan == found.plan


def test_a_rehearsal_says_nothing_of_how_well_its_few_steps_did(work, tmp_path, caplog):
    plan = replan(work, model="lightmedseg", ram_bytes=4e9, device="cpu", rehearse=False).plan
    case_ids = tuple(read_json(work / "splits.json")[0]["train"])
    caplog.clear()
    rehearse(plan, WorkFolder(work).cache, case_ids, tmp_path)
    assert not caplog.text


def test_a_network_of_two_axes_trains_and_predicts_slice_by_slice(work):
    found = replan(work, model="unext", ram_bytes=4e9, device="cpu", rehearse=False)
    assert found.plan.slice_axis == 2
    assert set(found.changed) >= {"network", "slice_axis", "patch_size", "roi_size"}
    run = work.parent / "run"
    train(work, run, {"epochs": 1, "steps_per_epoch": 2})
    outcome = predict(run, out=work.parent / "found", split="val", device="cpu")
    assert not outcome.failures


def test_a_network_of_two_axes_needs_a_plan_for_slices(work):
    with pytest.raises(ConfigError, match="lamina plan WORK --model unext"):
        train(work, work.parent / "run", {"model": "unext"})


def test_patches_of_volumes_need_a_plan_for_volumes(work):
    budget = {"ram_bytes": 4e9, "device": "cpu", "rehearse": False}
    replan(work, model="unext", **budget)
    settings = {"model": "lightmedseg", "patch_size": [16, 16, 16], "epochs": 1}
    with pytest.raises(ConfigError, match="lamina plan WORK --model lightmedseg"):
        train(work, work.parent / "run", settings)
    assert replan(work, model="lightmedseg", **budget).plan.slice_axis is None
    train(work, work.parent / "run", settings | {"steps_per_epoch": 1})


def test_scans_are_prepared_again_at_a_spacing_that_was_asked_for(work):
    case = next(WorkFolder(work).cache.glob("*/image.npy"))
    before = np.load(case, mmap_mode="r").shape
    asked = tuple(2 * step for step in read_plan(work).plan.target_spacing)
    found = replan(work, spacing=asked, ram_bytes=4e9, device="cpu", rehearse=False)
    assert found.plan.target_spacing == asked
    after = np.load(case, mmap_mode="r").shape
    assert all(abs(2 * now - then) <= 1 for now, then in zip(after[1:], before[1:], strict=True))


def test_a_network_and_a_spacing_that_were_asked_for_stay_until_others_are(work):
    budget = {"ram_bytes": 4e9, "device": "cpu", "rehearse": False}
    free = read_plan(work).plan
    asked = tuple(2 * step for step in free.target_spacing)
    replan(work, model="lgmsnet_3d", spacing=asked, **budget)
    kept = replan(work, time_budget_s=3600, **budget).plan
    assert (kept.network, kept.target_spacing) == ("lgmsnet_3d", asked)
    other = replan(work, model="lightmedseg", **budget).plan
    assert (other.network, other.target_spacing) == ("lightmedseg", asked)
    anew = replan(work, model="auto", **budget).plan
    assert (anew.network, anew.target_spacing) == (free.network, free.target_spacing)
    assert not anew.was_asked("network")


def test_scans_whose_slices_keep_their_distance_are_prepared_again(work):
    """One scan has its slices further apart than the plan resampled them to."""
    folder = WorkFolder(work)
    plan = read_json(folder.plan_file)
    write_json(folder.plan_file, plan | {"target_spacing": [1.0, 1.0, 4.0]})
    before = {path.parent.name: path.stat().st_mtime_ns for path in folder.cache.rglob("case.json")}
    replan(work, model="unext", ram_bytes=4e9, device="cpu", rehearse=False, workers=0)
    after = {path.parent.name: path.stat().st_mtime_ns for path in folder.cache.rglob("case.json")}
    assert before.keys() == after.keys()
    assert all(after[case_id] > before[case_id] for case_id in before)


def test_the_folds_stay(work):
    folds = (work / "splits.json").read_bytes()
    replan(work, model="unext", ram_bytes=4e9, device="cpu", rehearse=False)
    assert (work / "splits.json").read_bytes() == folds


def test_what_cannot_be_planned_is_refused_and_the_plan_stays(work, tmp_path):
    plan = (work / "plan.json").read_bytes()
    with pytest.raises(ConfigError, match="^ram: 100 MB"):
        replan(work, ram_bytes=1e8, device="cpu")
    with pytest.raises(UnknownNameError, match="lightmedseg"):
        replan(work, model="lightmedsec", device="cpu")
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        replan(tmp_path / "empty", device="cpu")
    assert (work / "plan.json").read_bytes() == plan


def test_little_time_makes_a_short_run_and_is_said_to_cost(work):
    found = replan(
        work, model="lightmedseg", time_budget_s=600, ram_bytes=4e9, device="cpu", rehearse=False
    )
    assert found.plan.estimates["training_s"] <= 600
    assert any("15,000 steps" in sentence for sentence in found.plan.given_up)


def test_the_command_shows_a_plan_and_explains_it(work, cli):
    plain, explained = (cli("plan", work, *flags).stdout for flags in ([], ["--explain"]))
    assert "lightmedseg" in plain
    assert "Because" in explained
    assert "Because" not in plain
    told = json.loads(cli("plan", work, "--json").stdout)
    assert told["changed"] == {}
    assert told["plan"]["network"] == "lightmedseg"
    assert told["out"] == str(work)


def test_cases_of_which_some_are_prepared_for_another_plan_are_not_trained_on(work, monkeypatch):
    folder, options = WorkFolder(work), {"ram_bytes": 4e9, "device": "cpu", "rehearse": False}
    plan = read_json(folder.plan_file)
    write_json(folder.plan_file, plan | {"target_spacing": [1.0, 1.0, 4.0]})
    store, done = preparing.prepare_case, []

    def breaks_off(case, *args, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(case)
        return store(case, *args, **kwargs)

    monkeypatch.setattr(preparing, "prepare_case", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        replan(work, model="unext", workers=0, **options)
    with pytest.raises(DatasetError, match="run lamina plan"):
        train(work, work.parent / "run", {"epochs": 1, "steps_per_epoch": 1})
    monkeypatch.undo()
    # With whatever plan it goes on, also the one that was there before.
    replan(work, model="unext", workers=0, **options)
    assert folder.fold(0).train


def test_a_plan_that_scans_do_not_fit_is_refused_and_the_old_one_stays_in_use(work):
    budget, before = {"ram_bytes": 4e9, "device": "cpu", "rehearse": False}, read_plan(work).plan
    with pytest.raises(DatasetError, match="6 cases do not fit the new plan.*over 32 times"):
        replan(work, spacing=(100, 100, 100), **budget)
    assert read_plan(work).plan == before
    assert WorkFolder(work).fold(0).train


def test_a_scan_that_was_left_out_before_hinders_no_new_plan(work):
    folder, budget = WorkFolder(work), {"ram_bytes": 4e9, "device": "cpu", "rehearse": False}
    found = read_json(folder.fingerprint_file)
    odd = found["cases"][0] | {"case_id": "odd", "spacing": [0.001, 0.001, 0.002]}
    write_json(folder.fingerprint_file, found | {"cases": [*found["cases"], odd]})
    assert replan(work, model="unext", **budget).plan.network == "unext"


@pytest.mark.parametrize(
    ("asked", "option"),
    [
        ({}, "--model auto"),
        ({"model": "unext"}, "--model unext"),
        ({"spacing": (2, 2, 4)}, "--spacing 2,2,4"),
        ({"model": "unext", "spacing": (2, 2, 4)}, "--model unext"),
    ],
)
def test_an_interrupted_plan_goes_back_to_what_was_asked_for(asked, option, work, cli):
    budget = {"ram_bytes": 4e9, "device": "cpu", "rehearse": False}
    before = replan(work, **asked, **budget).plan
    WorkFolder(work).changing_file.touch()
    with pytest.raises(DatasetError) as caught:
        WorkFolder(work).fold(0)
    assert caught.value.remedy == f"Wait for it, or run lamina plan {work} {option}."
    done = cli("plan", work, *option.split(), "--no-rehearse", "--ram", "4G", "--device", "cpu")
    assert done.exit_code == 0
    after = read_plan(work).plan
    assert (after.network, after.target_spacing) == (before.network, before.target_spacing)
    assert WorkFolder(work).fold(0).train


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "abacus"])
def test_a_device_that_is_not_there_is_one_clear_error(device, tiny_run, work):
    with pytest.raises(ConfigError, match=device):
        replan(work, device=device)
    with pytest.raises(ConfigError, match=device):
        predict(tiny_run, out=work.parent / "out", split="val", device=device)


def test_a_rehearsal_that_is_killed_leaves_nothing_behind(work, monkeypatch):
    folders = []

    def killed(function, items, workers):
        (function.scratch / "last.ckpt").write_bytes(b"half")
        folders.append(function.scratch)
        yield items[0], ResourceError("a worker process was killed.")

    monkeypatch.setattr(planner, "run_over", killed)
    replan(work, model="lightmedseg", ram_bytes=4e9, device="cpu")
    assert folders
    assert not any(folder.exists() for folder in folders)


@pytest.mark.parametrize(
    ("steps_s", "precision", "step_s"),
    [
        ({"fp32": 1.0, "bf16": 0.5}, "bf16", 0.5),
        ({"fp32": 1.0, "bf16": 0.95}, "fp32", 1.0),
        ({"fp32": 1.0}, "fp32", 1.0),
        ({"bf16": 0.1}, "fp32", 0.1),  # of a GPU, of which nothing is learnt for a CPU
    ],
)
def test_bf16_is_planned_where_it_is_clearly_faster(steps_s, precision, step_s):
    taken = Rehearsal(steps_s=steps_s, predict_s_per_voxel=1e-6, peak_bytes=1)
    assert (taken.precision, taken.step_s) == (precision, step_s)


@pytest.mark.parametrize(
    ("pixel_by_pixel_s", "channels_last", "step_s"),
    [(0.4, True, 0.4), (0.45, False, 0.5), (0.6, False, 0.5), (None, False, 0.5)],
)
def test_the_quicker_layout_of_images_is_planned(pixel_by_pixel_s, channels_last, step_s):
    taken = Rehearsal(
        steps_s={"fp32": 1.0, "bf16": 0.5},
        channels_last_s=pixel_by_pixel_s,
        predict_s_per_voxel=1e-6,
        peak_bytes=1,
    )
    assert (taken.channels_last, taken.step_s) == (channels_last, step_s)
    assert ("channels_last" in taken.reasons) == (pixel_by_pixel_s is not None)


def test_a_run_takes_the_planned_format_and_layout_unless_told_otherwise(work):
    plan = replace(read_plan(work).plan, precision="bf16", channels_last=True)
    for settings, precision, channels_last in (
        ({}, "bf16", True),
        ({"precision": "fp32"}, "fp32", True),
        ({"channels_last": False}, "bf16", False),
        ({"model": "segresnet"}, "fp32", False),  # which the plan is not about
    ):
        config = completed(TrainConfig(device="cpu", **settings), plan)
        assert (config.precision, config.channels_last) == (precision, channels_last)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, Optimiser().lr),
        ({"model": "mpunet"}, 1e-4),
        ({"model": "mpunet", "optimiser": {"weight_decay": 0.1}}, 1e-4),
        ({"model": "mpunet", "optimiser": {"lr": 3e-4}}, 3e-4),
        ({"model": "mpunet", "optimiser": {"lr": Optimiser().lr}}, Optimiser().lr),
        ({"model": "lgmsnet_2d"}, 2e-3),
        ({"model": "lgmsnet_3d"}, Optimiser().lr),
        ({"model": "cmunext_s"}, 2e-3),
        ({"model": "unet_lms"}, 2e-3),
        ({"model": "dainet_unet"}, 2e-3),
        ({"model": "unext"}, Optimiser().lr),
        ({"model": "lgmsnet_2d", "optimiser": {"lr": 0.01}}, 0.01),
    ],
)
def test_a_network_has_its_own_learning_rate_unless_told_otherwise(work, settings, rate):
    assert configured(settings, read_plan(work).plan).optimiser.lr == rate
    planned_for_it = replace(read_plan(work).plan, network="segresnet")
    assert configured({}, planned_for_it).optimiser.lr == 1e-3


def test_a_network_that_was_asked_for_is_said_to_be(work):
    found = replan(work, model="unext", time_budget_s=1, device="cpu", rehearse=False)
    assert found.plan.network == "unext"
    assert found.plan.reasons["network"] == "Asked for."
