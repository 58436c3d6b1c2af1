"""A study trains each run once, goes on after a kill, and tells what it did otherwise."""

import json
import os
import pickle
import re
import shutil
import signal
from dataclasses import replace
from statistics import fmean

import pytest
from torch.testing import assert_close

import lamina
from lamina.bundle import load_bundle
from lamina.errors import ConfigError, DatasetError, UnknownNameError
from lamina.files import read_json, sha256, write_json
from lamina.folders.evaluation import read_evaluation
from lamina.folders.work import WorkFolder
from lamina.study.schema import Column, read_study
from lamina.workflows.study import conduct, runs, study, unseen
from lamina.workflows.study.plan import settings_of, shared_out

TABLE = "lightmedseg/table4"
SETTINGS = {
    "model_options": {"channels": [4, 4, 4, 4, 8], "router_channels": 4},
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 2,
    "optimiser": {"ema_decay": 0.8},
}
ASKED = {"recipe": "auto", "rows": ["full", "no-lspm"], "epochs": 2}


@pytest.fixture(scope="module")
def studied(tiny_work, tmp_path_factory):
    """Two rows, two seeds; read only."""
    out = tmp_path_factory.mktemp("studies") / "study"
    told = []
    asked = ASKED | {"progress": lambda *done: told.append(done)}
    result = study(TABLE, tiny_work, out, SETTINGS, seeds=[0, 1], **asked)
    assert told[0][:2] == (0, 4)
    assert told[-1][:2] == (4, 4)
    return result


def cells_of(result):
    columns = [column.title for column in result.filled.study.columns]
    return {r.key: dict(zip(columns, r.cells, strict=True)) for r in result.filled.rows}


def test_every_row_and_seed_is_an_ordinary_run_and_is_scored(studied):
    names = {f"{row}_seed={seed}_fold=0" for row in ASKED["rows"] for seed in (0, 1)}
    for kind in ("runs", "scores"):
        folders = (path for path in (studied.out / kind).iterdir() if path.is_dir())
        assert {path.name for path in folders} == names
    manifest = read_json(studied.out / "runs/no-lspm_seed=1_fold=0/manifest.json")
    fields = manifest["network"]["fields"]
    assert (manifest["seed"], fields["lspm"], fields["channels"]) == (1, False, [4, 4, 4, 4, 8])
    assert {run.state for run in studied.runs} == {"finished"}
    table = read_study(TABLE)
    assert pickle.loads(pickle.dumps((table, studied.runs))) == (
        table,
        studied.runs,
    )  # for clusters


def test_a_cell_is_the_mean_over_patients_of_all_trainings(studied):
    cell = cells_of(studied)["full"]["Mean Dice"]
    by_seed = []
    for seed in (0, 1):
        found = read_evaluation(studied.out / "scores" / f"full_seed={seed}_fold=0")
        by_seed.append(fmean(fmean(row.values()) for row in found.values["dice"].values()))
    assert cell.measured == pytest.approx(100 * fmean(by_seed))
    assert cell.spread == pytest.approx(100 * abs(by_seed[0] - by_seed[1]) / 2**0.5)
    assert cell.difference == pytest.approx(cell.measured - 83.43)
    assert (cell.patients, cell.low) == (2, None)  # so few have no interval
    weights = cells_of(studied)["K16"]["Weights"]
    assert (round(weights.measured, 2), weights.published, weights.low) == (0.49, 0.49, None)


def test_the_table_is_left_in_three_forms_with_reasons(studied):
    table = read_json(studied.out / "table.json")
    assert table == {
        k: v for k, v in json.loads(json.dumps(studied.as_dict())).items() if k in table
    }
    page, latex = ((studied.out / f"table.{kind}").read_text("utf-8") for kind in ("md", "tex"))
    assert re.search(r"\| Full model, K = 8 \| published \| 83.43 \| 0.48 \|", page)
    for told in (
        "Trained on Tiny; the paper has msd",
        "validation scans",
        "2 epochs, 4 steps",
        "recipe auto",
    ):
        assert told in page
    assert r"\toprule" in latex
    assert "81.93" in latex


def test_what_is_finished_is_left_alone_and_more_can_be_asked_for(
    studied, tiny_work, tmp_path, monkeypatch
):
    out = tmp_path / "study"
    shutil.copytree(studied.out, out)
    trained = []
    monkeypatch.setattr(runs, "finish_run", noted(trained))
    monkeypatch.setattr(runs, "predict", lambda *_, **__: pytest.fail("scored again"))
    again = study(TABLE, tiny_work, out, SETTINGS, seeds=[1], **ASKED)
    assert (trained, again.failures) == ([], {})
    monkeypatch.undo()
    monkeypatch.setattr(runs, "finish_run", noted(trained))
    more = ASKED | {"rows": ["full", "K16"]}
    grown = study(TABLE, tiny_work, out, SETTINGS, **more)
    assert trained == ["K16_seed=0_fold=0"]
    assert cells_of(grown)["K16"]["Mean Dice"].patients == 2


def noted(trained, **listeners):
    def finish(work, out, settings, fold, **others):
        trained.append(out.name)
        return runs_finish_run(work, out, settings, fold, **others | listeners)

    return finish


runs_finish_run = runs.finish_run


def test_prepared_slanted_scans_are_scored(studied, tiny_work, slanted_work, tmp_path):
    run = replace(studied.runs[0], out=tmp_path)
    shutil.copytree(studied.runs[0].run.root, run.run.root)
    runs.train_and_score(read_study(TABLE), tiny_work, run, slanted_work)
    scores = read_evaluation(run.scores).scores
    assert (len(scores.cases), scores.failures) == (6, {})


def test_a_killed_study_goes_on_where_it_was(studied, tiny_work, tmp_path, monkeypatch):
    out, trained = tmp_path / "study", []

    def kill_the_second(step, *_):
        if len(trained) == 2 and step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runs, "finish_run", noted(trained, on_step=kill_the_second))
    with pytest.raises(KeyboardInterrupt):
        study(TABLE, tiny_work, out, SETTINGS, **ASKED)
    assert trained == ["full_seed=0_fold=0", "no-lspm_seed=0_fold=0"]
    cells = {row["key"]: row["cells"][0] for row in read_json(out / "table.json")["rows"]}
    assert cells["full"]["patients"] == 2
    assert cells["no-lspm"]["measured"] is None
    trained.clear()
    monkeypatch.setattr(runs, "finish_run", noted(trained))
    outline = study(TABLE, tiny_work, out, SETTINGS, dry_run=True, **ASKED)
    assert [run.state for run in outline.runs] == ["finished", "begun"]
    result = study(TABLE, tiny_work, out, SETTINGS, **ASKED)
    assert trained == ["no-lspm_seed=0_fold=0"]
    assert not result.failures
    for run in result.runs:
        ours, theirs = (
            load_bundle(place / "runs" / run.name / "model.lamina").weights
            for place in (out, studied.out)
        )
        assert_close(ours, theirs, rtol=0, atol=0)


def test_the_budget_is_for_all_runs_and_what_is_spent_is_taken_off(studied, tmp_path):
    spent = sum(run.granted_s for run in studied.runs)
    fresh = [replace(studied.runs[0], seed=seed, out=tmp_path) for seed in (2, 3)]
    *finished, first, second = shared_out([*studied.runs, *fresh], spent + 40, None)
    assert tuple(finished) == studied.runs
    for run in (first, second):
        assert (run.settings["time_budget_s"], run.settings["epochs"]) == (20, None)
    given = replace(fresh[0], seed=4)
    manifest = studied.runs[0].run.manifest()
    manifest["config"]["time_budget_s"] = 30
    write_json(given.run.manifest_file, manifest)
    given.run.bundle_file.touch()
    *_, last = shared_out([given, *fresh], 90, None)
    assert last.settings["time_budget_s"] == 30  # though the first took another time
    with pytest.raises(ConfigError, match="are spent, 2 runs are left"):
        shared_out([*studied.runs, *fresh], spent, None)


def test_a_dry_run_writes_nothing_and_tells_how_long(tiny_work, tmp_path, cli):
    out = tmp_path / "study"
    base = tmp_path / "base.yaml"
    write_json(base, SETTINGS)
    asked = [TABLE, "--data", tiny_work, "--out", out, "--config", base, "--recipe", "auto"]
    done = cli("study", *asked, "--dry-run", "--time-budget", "70m", "--seeds", "0,5", "--json")
    told = json.loads(done.stdout)["runs"]
    assert {(run["state"], run["seconds"]) for run in told} == {("to do", 300)}
    assert len(told) == 14
    assert {run["name"].split("_")[-2] for run in told} == {"seed=0", "seed=5"}
    done = cli("study", *asked, "--dry-run", "--epochs", "3", "--rows", "full")
    assert (done.exit_code, out.exists()) == (0, False)
    assert "3 epochs, 6 steps" in done.stdout
    assert "1 of 1 runs" in done.stdout


def test_other_scans_can_be_scored_than_were_trained_on(tiny_work, slanted_work, tmp_path):
    asked = ASKED | {"rows": ["full"], "epochs": 1}
    out, settings = tmp_path / "study", SETTINGS | {"training_share": 0.5}
    others = tmp_path / "others"
    shutil.copytree(slanted_work, others)
    result = study(TABLE, tiny_work, out, settings, unseen=others, **asked)
    assert result.runs[0].run.manifest()["num_training_cases"] == 2
    assert cells_of(result)["full"]["Mean Dice"].patients == 6
    page = (out / "table.md").read_text("utf-8")
    assert "Scored on Slanted, which was not trained on.\n" in page  # the paper has no such scans
    other = tmp_path / "other"
    other.mkdir()
    for name in ("splits.json", "dataset.json"):
        shutil.copy(tiny_work / name, other)
    content = read_json(other / "dataset.json")
    content["labels"]["values"] = {"huge": 3, "small": 7}
    write_json(other / "dataset.json", content)
    with pytest.raises(DatasetError, match="its labels are huge = 3"):
        study(TABLE, tiny_work, tmp_path / "second", SETTINGS, unseen=other, **asked)
    assert not (tmp_path / "second").exists()
    ours = read_json(others / "dataset.json")
    write_json(others / "dataset.json", ours | {"name": "Tiny"})  # patients of ours, it would say
    assert study(TABLE, tiny_work, out, settings, unseen=others, **asked).filled
    with pytest.raises(DatasetError, match="both datasets are called 'Tiny'"):
        study(TABLE, tiny_work, out, settings, unseen=others, seeds=[0, 1], **asked)


def test_scans_or_patients_that_are_trained_on_are_not_scored_as_unseen(
    tiny_work, slanted_work, tmp_path
):
    asked = ASKED | {"rows": ["full"], "dry_run": True}
    renamed, revisited, apart = (tmp_path / name for name in ("renamed", "revisited", "apart"))
    for folder, work in ((renamed, tiny_work), (revisited, slanted_work), (apart, tiny_work)):
        shutil.copytree(work, folder)
    ours = read_json(tiny_work / "dataset.json")
    content = ours | {"name": "Other"}
    content["cases"] = [
        case | {"case_id": f"other_{number}", "group": f"other_{number}"}
        for number, case in enumerate(ours["cases"])
    ]
    write_json(renamed / "dataset.json", content)
    content = read_json(slanted_work / "dataset.json") | {"name": "Tiny"}
    write_json(revisited / "dataset.json", content)
    for other, first in ((tiny_work, "ball_000"), (renamed, "other_0"), (revisited, "ball_000")):
        with pytest.raises(DatasetError, match=f"to train on: {first}, .*, \\.\\.\\.") as told:
            study(TABLE, tiny_work, tmp_path / "out", SETTINGS, unseen=other, **asked)
        of_names = ("both datasets are called 'Tiny'", "another name in dataset.json")
        assert [text in str(told.value) for text in of_names] == [other == revisited] * 2
    shutil.rmtree(apart / "cases" / "ball_000")  # as one is that was kept for the end
    write_json(renamed / "dataset.json", ours | {"cases": ours["cases"][:1]})
    assert study(TABLE, apart, tmp_path / "out", SETTINGS, unseen=renamed, **asked).runs


def test_files_are_read_for_copies_only_where_another_has_their_size(
    tiny_work, slanted_work, monkeypatch
):
    sizes = [
        {file.stat().st_size for case in cohort.cases for file in case.image_files}
        for cohort in (WorkFolder(tiny_work).cohort(), WorkFolder(slanted_work).cohort())
    ]
    read = []
    monkeypatch.setattr(unseen, "sha256", lambda file: (read.append(file), sha256(file))[1])
    unseen.check_unseen(tiny_work, slanted_work)
    assert {file.stat().st_size for file in read} == sizes[0] & sizes[1]


def test_cases_channels_and_the_papers_own_metrics(tiny_work, tmp_path, monkeypatch):
    """One run of a table of single cases, with columns of all three kinds."""
    columns = ("mpunet_dice", "channels", "dice")
    table = replace(
        read_study("mpunet/table8"),
        columns=tuple(Column(title=metric, metric=metric) for metric in columns),
        rows={"MPU-Net": replace(read_study("mpunet/table8").rows["MPU-Net"], published=())},
        cases={"27": (93.56, None, None)},
    )
    monkeypatch.setattr(conduct, "read_study", lambda name: table)
    settings = {"model_options": {"width": 4}, "patch_size": [16, 16, 16], "steps_per_epoch": 1}
    out = tmp_path / "study"
    result = study("mpunet/table8", tiny_work, out, settings, recipe="auto", epochs=1)
    first, *scored, mean = result.filled.rows
    assert (first.key, first.cells[0].published, first.cells[0].measured) == ("27", 93.56, None)
    assert len(scored) == 2
    for row in (*scored, mean):
        assert all(0 <= cell.measured <= 100 for cell in row.cells)
        assert row.cells[1].measured > 0
    assert mean.cells[1].measured == pytest.approx(fmean(r.cells[1].measured for r in scored))


def test_what_cannot_be_trained_is_refused_or_left_out(studied, tiny_work, tmp_path):
    out = tmp_path / "study"
    with pytest.raises(UnknownNameError, match="glims/tabel4"):
        study("glims/tabel4")
    with pytest.raises(UnknownNameError, match="no row 'half'"):
        study(TABLE, tiny_work, out, rows=["half"])
    with pytest.raises(ConfigError, match="SETR-MLA cannot be trained: Lamina has no"):
        study("lightmedseg/table1", tiny_work, out, rows=["SETR-MLA"])
    with pytest.raises(ConfigError, match="scored on another dataset, bus"):
        study("lgmsnet/table2-bus", tiny_work, out)
    with pytest.raises(ConfigError, match="no row can be trained.*region_based"):
        study("glims/table4", tiny_work, out)
    assert not out.exists()
    with pytest.raises(ConfigError, match="holds a study of another settings"):
        study(TABLE, tiny_work, studied.out, SETTINGS | {"batch_size": 1}, **ASKED)
    with pytest.raises(DatasetError, match="holds files that no study wrote"):
        study(TABLE, tiny_work, tiny_work, SETTINGS, **ASKED)


def test_options_of_the_recipes_network_go_with_its_family_alone():
    table = read_study("glims/table2")
    recipe = lamina.recipe("glims-brats")
    ours, other = (settings_of(table, table.rows[k], recipe, {}) for k in ("GLIMS", "UNETR"))
    assert (ours["model_options"], other["model_options"]) == ({"released": False}, {})
    assert (other["model"], other["optimiser"]["lr"]) == ("unetr", 1e-3)


def test_without_scans_networks_are_counted_on_the_command_line(cli, tmp_path):
    listed = json.loads(cli("study", "--json").stdout)["studies"]
    assert {study["source"].partition(",")[0] for study in listed} == {
        *("GLIMS", "LGMSNet", "LightMedSeg", "DAI-Net", "MPU-Net"),
    }
    assert "glims/table4" in cli("study").stdout
    done = cli("study", "mpunet/table6", "--out", tmp_path / "table")
    assert done.exit_code == 0
    assert re.search(r"U-Net +published +2.33", done.stdout)
    assert (tmp_path / "table" / "table.tex").is_file()
    assert cli("study", "glims/tabel4").exit_code == 2
