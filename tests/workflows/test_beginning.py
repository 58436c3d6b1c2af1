"""Every kind of run begins where nothing is lost by it, and goes on as what it was."""

import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

from lamina.errors import FileError, TrainingError
from lamina.files import locked, write_json
from lamina.folders.all_folds import folds_of
from lamina.folders.run import RunFolder, read_history
from lamina.folders.work import WorkFolder
from lamina.workflows.cross_validation import cross_validate, record
from lamina.workflows.evaluate import evaluate
from lamina.workflows.prepare import prepare
from lamina.workflows.pretrain import pretrain
from lamina.workflows.steps.assembly import net_of
from lamina.workflows.steps.run_record import unchanged
from lamina.workflows.sweep import sweep
from lamina.workflows.train import train

LABELS = "labelsTr"


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/run"])
@pytest.mark.parametrize("begin", [train, cross_validate, pretrain, sweep])
def test_a_file_is_no_folder_for_a_run(begin, place, tiny_work, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"notes\.txt: is a file\. Give another place"):
        begin(tiny_work, tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_neither_is_it_for_scores_or_prepared_cases(tiny_dataset, tmp_path):
    out, seen = tmp_path / "notes.txt", []
    out.write_text("mine")

    def see(*about):
        seen.append(about)

    with pytest.raises(FileError, match="Give another place"):
        evaluate(tiny_dataset / LABELS, tiny_dataset / LABELS, out=out, progress=see)
    with pytest.raises(FileError, match="Give another place"):
        prepare(tiny_dataset, out, progress=see)
    assert not seen  # hours of work would have been lost


BEGIN = """
import sys
from pathlib import Path
from lamina.errors import FileError
from lamina.workflows.cross_validation import cross_validate
from lamina.workflows.plan import replan
from lamina.workflows.prepare import prepare
from lamina.workflows.pretrain import pretrain
from lamina.workflows.sweep import sweep
from lamina.workflows.train import train
dataset, work, place = map(Path, sys.argv[1:])
def see(*about):
    raise AssertionError(about)
for begin in (
    lambda: train(work, place / "new"),
    lambda: train(work, place / "run", {"epochs": 9}, resume=True, on_start=see),
    lambda: cross_validate(work, place / "new"),
    lambda: pretrain(work, place / "new"),
    lambda: sweep(work, place / "new"),
    lambda: prepare(dataset, place / "new" / "work", progress=see),
    lambda: replan(place / "work", model="auto", progress=see),
):
    try:
        begin()
    except FileError as error:
        print(error)
"""


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tiny_dataset, tiny_work, tiny_run, tmp_path
):
    place = tmp_path / "place"
    place.mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = (
        f"mount -t tmpfs tmpfs {place} && cp -r {tiny_work} {tiny_run} {place} && "
        f"mount -o remount,ro {place}"
    )
    if not shutil.which("unshare") or subprocess.run([*inside, mount], check=False).returncode:
        pytest.skip("this system lets no ordinary user mount a file system of its own")
    script = f'{mount} && exec "$0" -W error -c "$@"'
    arguments = [sys.executable, BEGIN, *map(str, (tiny_dataset, tiny_work, place))]
    done = subprocess.run(
        [*inside, script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = "cannot be written to. Choose another place, or ask for leave to read and write there."
    places = [place, place / "run", *[place] * 4, place / "work"]
    assert done.stdout.splitlines() == [f"{each}: {told}" for each in places]


@pytest.mark.parametrize("begin", [train, cross_validate, pretrain])
def test_no_run_begins_among_other_files(begin, tiny_work, tiny_run, tmp_path):
    with pytest.raises(TrainingError, match="already holds a run"):
        begin(tiny_work, tiny_run)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds files that no run wrote"):
        begin(tiny_work, tmp_path)


def test_what_was_said_of_all_folds_may_be_said_again_in_part(tiny_work, tmp_path):
    work, out = WorkFolder(tiny_work), tmp_path / "run"
    folds = folds_of(work)
    settings = {"optimiser": {"lr": 0.01, "weight_decay": 0.1}}
    record.begin(work, out, folds, settings, None)
    again = record.resume(work, out, folds, {"epochs": 3, "optimiser": {"lr": 0.01}}, None)
    assert again.record["settings"] == settings | {"epochs": 3}
    default = record.resume(work, out, folds, {"seed": 0, "loss": "dice_ce"}, None)
    assert default.record["settings"]["epochs"] == 3
    with pytest.raises(TrainingError, match="seed cannot change when a run is resumed"):
        record.resume(work, out, folds, {"seed": 1}, None)
    with pytest.raises(TrainingError, match="optimiser cannot change when a run is resumed"):
        record.resume(work, out, folds, {"optimiser": {"lr": 0.02}}, None)


@pytest.mark.parametrize("begin", [train, cross_validate])
def test_two_processes_do_not_work_on_one_run(begin, tiny_work, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(FileError, match="another process"):
        begin(tiny_work, tmp_path / "run", {"epochs": 1, "steps_per_epoch": 1})
    assert not any((tmp_path / "run").glob("*.json*"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_finished_meanwhile_is_left_alone(
    resume, tiny_work, tiny_run, tmp_path, monkeypatch
):
    run = RunFolder(tmp_path / "run")
    if resume:
        shutil.copytree(tiny_run, run.root)

    def after_another(*given):
        shutil.copytree(tiny_run, run.root, dirs_exist_ok=True)
        write_json(run.manifest_file, run.manifest() | {"created": "by another process"})
        return net_of(*given)

    monkeypatch.setattr("lamina.workflows.train.net_of", after_another)
    with pytest.raises(TrainingError, match="another process has been at work there meanwhile"):
        train(tiny_work, run.root, {"epochs": 2}, resume=resume)
    assert run.manifest()["created"] == "by another process"
    assert read_history(run) == read_history(RunFolder(tiny_run))


def test_folds_begin_from_the_weights_that_were_given(tiny_work, tiny_run, tmp_path):
    work, out, start = WorkFolder(tiny_work), tmp_path / "run", tmp_path / "start.lamina"
    folds, bundle = folds_of(work), RunFolder(tiny_run).bundle_file
    shutil.copyfile(bundle, start)
    ours = record.begin(work, out, folds, {}, start)
    assert ours.start == start.resolve()
    start.write_bytes(b"others")
    with pytest.raises(TrainingError, match=r"start\.lamina: holds other weights than those"):
        _ = ours.start
    with pytest.raises(TrainingError, match="did not begin from these weights"):
        record.resume(work, out, folds, {}, start)
    assert record.resume(work, out, folds, {}, bundle).start == bundle.resolve()
    assert record.resume(work, out, folds, {}, None).start == bundle.resolve()


def test_a_run_that_goes_on_has_its_own_weights(tiny_work, tiny_run, tmp_path):
    run = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    with pytest.raises(TrainingError, match="did not begin from these weights"):
        train(tiny_work, run.root, {"epochs": 2}, resume=True, start=run.bundle_file)
    assert read_history(run) == read_history(RunFolder(tiny_run))


def test_all_settings_that_differ_are_told_but_those_that_may():
    then, run = {"lr": 1, "seed": 0, "epochs": 2}, RunFolder(LABELS)

    def asked(**settings):
        return unchanged(run, then, settings, ["epochs"], lambda known: Settings(**known))

    assert asked(epochs=9) == Settings(1, 0, 9, None)
    with pytest.raises(TrainingError, match=r"labelsTr: lr, seed cannot change.*Only epochs can"):
        asked(lr=2, seed=1, epochs=9)


@dataclass
class Settings:
    lr: float
    seed: int
    epochs: int
    device: str | None


@pytest.mark.parametrize("torn", ['{"epoch": 1, "st', "7", "{}", '{"epoch": 1, "step": "x"}'])
def test_a_damaged_line_of_the_history_is_told(torn, tiny_run, tmp_path):
    run = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    with run.history_file.open("a") as stream:
        stream.write(torn)
    message = r"metrics\.jsonl: line 2 is no record of an epoch\. Remove the line\."
    with pytest.raises(TrainingError, match=message):
        read_history(run)
