"""The verbs on the command line: help, JSON, errors, exit status."""

import json
import os
import shutil
import signal
import subprocess
import sys
from urllib.request import urlopen

import pytest

import lamina
from lamina.data.phantom import make_phantom
from lamina.io import write_volume
from lamina.training.config import TrainConfig

VERBS = [
    *("prepare", "train", "sweep", "predict", "evaluate", "demo"),
    *("doctor", "models", "datasets", "fetch", "import-weights"),
    *("report", "mesh", "view"),
    *("plan", "recipes", "pretrain", "attention-maps", "to-nnunet"),
    *("runs", "compare", "bench", "serve"),
]
PACS = [("pacs", verb) for verb in ("echo", "pull", "push", "watch", "status")]
MAIN = "from lamina.cli import main; main()"


@pytest.fixture
def segmented(cli, tiny_run, tiny_dataset, tmp_path):
    """Segmentations of the six tiny scans."""
    done = cli("predict", "-m", tiny_run, "-i", tiny_dataset / "imagesTr", "-o", tmp_path / "seg")
    assert (done.exit_code, done.stderr) == (0, "")
    return tmp_path / "seg"


def test_help_begins_with_the_main_job(cli):
    shown = cli("--help").stdout
    places = [shown.index(f" {verb} ") for verb in ("prepare", "predict", "fetch", "pretrain")]
    assert places == sorted(places)


def test_help_lists_every_verb(cli):
    for arguments in (["--help"], ["-h"]):
        done = cli(*arguments)
        assert done.exit_code == 0
        assert all(verb in done.stdout for verb in [*VERBS, "pacs"])


def test_no_verb_at_all_shows_the_help(cli):
    done = cli()
    assert "Usage" in done.output
    assert all(verb in done.output for verb in VERBS)


@pytest.mark.parametrize("verb", [*((verb,) for verb in VERBS), *PACS], ids=" ".join)
def test_every_verb_explains_itself_with_an_example(cli, verb):
    done = cli(*verb, "--help")
    assert done.exit_code == 0
    assert f"Example: lamina {' '.join(verb)} " in done.stdout
    assert all(option in done.stdout for option in ("--json", "--quiet", "--verbose", "-q", "-v"))


def test_the_examples_are_understood(cli):
    """Each is tried with the files it names absent, which is all that may be wrong with it."""
    for verb in ("prepare", "train", "sweep", "predict", "evaluate"):
        line = next(s for s in cli(verb, "--help").stdout.splitlines() if "Example: " in s)
        done = cli(*line.split("lamina ")[1].split())
        assert done.exit_code == 2
        assert done.stderr.startswith("Error: ")


def test_version(cli):
    done = cli("--version")
    assert (done.exit_code, done.stdout) == (0, f"lamina {lamina.__version__}\n")


def test_help_is_quick_because_it_loads_nothing_heavy():
    script = (
        "import sys; from lamina.cli import main\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'monai', 'scipy', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "train", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("set()\n")
    assert "--time-budget" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segment"], "No such command 'segment'"),
        (["predict"], "Missing option"),
        (["prepare", "data", "--out", "w", "--ram", "8X"], "such as 8G or 512M"),
        (["prepare", "data", "--out", "w", "--folds", "1"], "greater than or equal to 2"),
        (["train", "work", "--out", "run", "--time-budget", "soon"], "such as 20m or 1.5h"),
        (["demo", "--spatial-dims", "4"], "less than or equal to 3"),
        (["models", "--lots"], "No such option: --lots"),
    ],
)
def test_wrong_usage_is_refused_in_words_or_in_json(cli, arguments, said):
    done = cli(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())
    done = cli(*arguments, "--json")
    assert (done.exit_code, done.stderr) == (2, "")
    document = json.loads(done.stdout)
    assert document["error"] == "UsageError"
    assert said in document["message"]


class TestJson:
    """One document on standard output, and nothing anywhere else."""

    def document(self, done, status=0):
        assert (done.exit_code, done.stderr) == (status, "")
        return json.loads(done.stdout)

    def test_prepare(self, cli, tiny_dataset, tmp_path):
        work = tmp_path / "work"
        found = self.document(
            cli("prepare", tiny_dataset, "--out", work, "--no-rehearse", "--json")
        )
        assert (found["out"], found["num_cases"], found["failures"]) == (str(work), 6, {})
        assert found["plan"]["reasons"]["patch_size"]

    def test_train_and_predict(self, cli, tiny_work, tmp_path):
        short = ["--epochs", 1, "--set", "steps_per_epoch=2"]
        done = cli("train", tiny_work, "--out", tmp_path / "run", *short, "--json")
        trained = self.document(done)
        assert (trained["epochs"], trained["best_epoch"]) == (1, 0)
        out = tmp_path / "seg"
        done = cli("predict", "-m", trained["bundle"], "--split", "val", "-o", out, "--json")
        assert self.document(done, 2)["error"] == "TrainingError"
        done = cli("predict", "-m", trained["out"], "--split", "val", "-o", out, "--json")
        found = self.document(done)
        assert (trained["out"], found["out"]) == (str(tmp_path / "run"), str(out))
        assert [case["error"] for case in found["cases"]] == ["", ""]
        assert found["failures"] == {}

    def test_evaluate(self, cli, segmented, tiny_dataset):
        arguments = ["evaluate", "-p", segmented, "-r", tiny_dataset / "labelsTr"]
        scores = self.document(cli(*arguments, "--metric", "dice", "--json"))
        assert 0 <= scores["mean_foreground"]["dice"] < 1
        (segmented / "ball_001.nii.gz").write_bytes(b"")
        out = segmented.parent / "scores"
        scores = self.document(cli(*arguments, "--out", out, "--json"), 1)
        assert (list(scores["failures"]), scores["out"]) == (["ball_001"], str(out))

    def test_file_names_that_are_no_words(self, cli, tiny_run, tmp_path):
        scans = tmp_path / "scans"
        scans.mkdir()
        odd = os.fsdecode(b"[red] \xff\n.nii")
        (scans / odd).write_bytes(b"")
        arguments = ["predict", "-m", tiny_run, "-i", scans, "-o", tmp_path / "out"]
        found = self.document(cli(*arguments, "--json"), 1)
        assert [case["image"] for case in found["cases"]] == [str(scans / odd)]
        assert list(found["failures"]) == [odd.removesuffix(".nii")]
        assert "[red] \\udcff\n" in cli(*arguments).stderr

    def test_models(self, cli):
        found = self.document(cli("models", "lightmedseg", "--in-channels", 4, "--json"))
        assert [fact["name"] for fact in found["models"]] == ["lightmedseg"]

    @pytest.mark.parametrize(
        ("verb", "arguments", "error"),
        [
            ("prepare", ["nowhere", "--out", "w"], "DatasetError"),
            ("train", ["nowhere", "--out", "r"], "DatasetError"),
            ("train", ["nowhere", "--out", "r", "--recipe", "quick"], "ConfigError"),
            ("predict", ["-m", "nowhere", "-i", ".", "-o", "s"], "BundleError"),
            ("evaluate", ["-p", "nowhere", "-r", "nowhere"], "DatasetError"),
            ("evaluate", ["-p", ".", "-r", ".", "--metric", "dise"], "UnknownNameError"),
        ],
    )
    def test_errors(self, cli, verb, arguments, error, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        found = self.document(cli(verb, *arguments, "--json"), 2)
        assert found["error"] == error
        assert found["message"]
        assert found.keys() == {"error", "message", "remedy"}


class TestWords:
    """The same for people."""

    def test_prepare_shows_the_plan_and_what_comes_next(self, cli, tiny_dataset, tmp_path):
        done = cli(
            "prepare", tiny_dataset, "--out", tmp_path / "work", "--no-rehearse", "--folds", 3
        )
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith("Tiny: 6 scans of 6 patients, 3 folds\n")
        assert f"Next: lamina train {tmp_path / 'work'} --out RUN\n" in done.stdout
        for words in ("1 x 1 x 2 mm", "32 x 32 x 16", "MR: zscore", "All scans share this spacing"):
            assert words in done.stdout

    def test_train_says_what_it_reached(self, cli, tiny_work, tmp_path):
        run = tmp_path / "run"
        done = cli("train", tiny_work, "--out", run, "--epochs", 2, "--set", "steps_per_epoch=1")
        assert done.exit_code == 0
        first, second = done.stderr.splitlines()
        assert first.startswith("Epoch 1 of 2: loss ")
        assert second.startswith("Epoch 2 of 2: loss ")
        assert done.stdout.startswith("Best validation Dice 0.")
        assert "of 2; " in done.stdout.splitlines()[0]
        assert f"Model: {run / 'model.lamina'}\n" in done.stdout
        done = cli("train", tiny_work, "--out", run)
        assert done.exit_code == 2
        assert done.stderr == (
            f"Error: {run}: already holds a run.\n  Add --resume, or choose another --out.\n"
        )

    def test_settings_that_are_wrong_are_all_listed(self, cli, tiny_work, tmp_path):
        wrong = ["optimiser.learning_rate=1", "epochs=-3", "sed=1", "oversample_foreground=lots"]
        arguments = [part for setting in wrong for part in ("--set", setting)]
        done = cli("train", tiny_work, "--out", tmp_path / "run", *arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: ")
        assert "sed: unknown; did you mean seed?" in done.stderr
        assert "optimiser.learning_rate: unknown" in done.stderr
        assert "oversample_foreground = 'lots'" in done.stderr
        assert "epochs = -3: must be above 0" in done.stderr
        assert not (tmp_path / "run").exists()

    def test_flags_win_over_the_recipe_and_set_over_flags(self, cli, tiny_work, tmp_path):
        (tmp_path / "mine.yaml").write_text("seed: 5\nepochs: 7\npatience: 3\n")
        recipe = lamina.recipe("demo_2d")
        run = tmp_path / "run"
        arguments = ["--recipe", "demo_2d", "--config", tmp_path / "mine.yaml", "--epochs", 1]
        settings = ["--set", "patience=2", "--set", "steps_per_epoch=1", "--set", "batch_size=1"]
        done = cli("train", tiny_work, "--out", run, *arguments, *settings, "--fold", 2)
        assert done.exit_code == 0
        manifest = json.loads((run / "manifest.json").read_text())
        config = manifest["config"]
        assert (config["seed"], config["epochs"], config["patience"]) == (5, 1, 2)
        assert config["optimiser"]["lr"] == recipe["optimiser"]["lr"]
        assert config["optimiser"]["lr"] != TrainConfig().optimiser.lr
        assert manifest["fold"] == 2

    def test_predict_and_evaluate_list_what_failed(self, cli, segmented, tiny_run, tiny_dataset):
        scans = segmented.parent / "scans"
        shutil.copytree(tiny_dataset / "imagesTr", scans)
        bad = scans / "ball_001.nii.gz"
        bad.write_text("text")
        done = cli("predict", "-m", tiny_run, "-i", scans, "-o", segmented)
        assert done.exit_code == 1
        assert done.stdout.startswith("5 of 6 scans segmented in ")
        assert done.stderr.startswith(f"Failed: 1\n  {bad}: is no NIfTI file")
        shutil.copy(bad, segmented)
        done = cli("evaluate", "-p", segmented, "-r", tiny_dataset / "labelsTr")
        assert done.exit_code == 1
        assert "Scores of 5 cases" in done.stdout
        assert done.stderr.startswith(f"Failed: 1\n  {segmented / bad.name}: is no NIfTI file")

    def test_evaluate_leaves_files(self, cli, segmented, tiny_dataset, tmp_path):
        out = tmp_path / "scores"
        done = cli("evaluate", "-p", segmented, "-r", tiny_dataset / "labelsTr", "--out", out)
        assert done.exit_code == 0
        names = {path.name for path in out.iterdir()}
        assert names == {"scores.csv", "scores.json", "cases.json"}

    def test_models_is_a_table(self, cli):
        done = cli("models", "lightmedseg", "--in-channels", 4, "--num-classes", 4)
        assert done.exit_code == 0
        assert "477,242" in done.stdout

    def test_names_of_networks_stay_whole_in_80_columns(self, cli, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        names = {found["name"] for found in json.loads(cli("models", "--json").stdout)["models"]}
        assert names <= set(cli("models").stdout.split())


def test_quiet_says_nothing_but_errors(cli, tiny_run, tiny_dataset, tmp_path):
    scan = tiny_dataset / "imagesTr" / "ball_000.nii.gz"
    done = cli("predict", "-m", tiny_run, "-i", scan, "-o", tmp_path / "out", "-q")
    assert (done.exit_code, done.output) == (0, "")
    assert (tmp_path / "out" / scan.name).is_file()
    (tmp_path / "bad.nii").write_bytes(b"")
    done = cli("predict", "-m", tiny_run, "-i", tmp_path / "bad.nii", "-o", tmp_path / "out", "-q")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{tmp_path / 'bad.nii'}: is empty" in done.stderr
    done = cli("predict", "-m", tiny_run, "-i", tmp_path / "no.nii", "-o", tmp_path / "out", "-q")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no such file" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_program_that_is_stopped_while_it_starts_says_nothing(name):
    """The signal comes as the first of the packages is imported."""
    impatient = (
        "import os, signal, sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == 'typer': os.kill(os.getpid(), signal.{name})\n"
        "sys.meta_path.insert(0, Impatient())\n"
    )
    command = [sys.executable, "-c", impatient + MAIN, "models", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="terminals end otherwise there")
@pytest.mark.parametrize("kept", [False, True], ids=["closed", "nohup"])
def test_a_terminal_that_is_closed_leaves_no_scan_behind(tmp_path, kept):
    write_volume(make_phantom(3)[0], tmp_path / "scan.nii.gz")
    (tmp_path / "temporary").mkdir()
    handling = "signal.SIG_IGN" if kept else "signal.SIG_DFL"
    before = f"import signal; signal.signal(signal.SIGHUP, {handling}); "
    command = [sys.executable, "-c", before + MAIN, "view", str(tmp_path / "scan.nii.gz")]
    with subprocess.Popen(
        [*command, "--no-browser", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
    ) as process:
        try:
            url = json.loads("".join(process.stdout.readline() for _ in range(3)))["url"]
            assert list((tmp_path / "temporary").iterdir())
            process.send_signal(signal.SIGHUP)
            if kept:
                with urlopen(url) as answer:
                    assert answer.status == 200
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, 130)
        finally:
            process.kill()
    assert not list((tmp_path / "temporary").iterdir())


def test_a_reader_that_goes_away_is_no_crash():
    """Such as ``lamina models --json | head -1``."""
    for extra in ([], ["--json"]):
        with subprocess.Popen(
            [sys.executable, "-c", MAIN, "models", "lightmedseg", *extra],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            process.stdout.close()
            stderr = process.stderr.read()
        assert process.returncode == 1
        assert stderr == ""
