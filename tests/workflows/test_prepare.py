"""Preparing a dataset: good cases go on, bad ones are listed, interruptions do no harm."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from PIL import Image

from lamina.data.folds import make_folds
from lamina.data.phantom import write_phantom_dataset
from lamina.errors import ConfigError, DatasetError, FileError, UnknownNameError
from lamina.files import read_json, write_json
from lamina.folders.work import WorkFolder
from lamina.workflows import prepare as preparation
from lamina.workflows.doctor import doctor
from lamina.workflows.steps import preparing

prepare = partial(preparation.prepare, rehearse=False)  # which takes longer than the rest

SPACING = np.diag([1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def dataset(tiny_dataset, tmp_path):
    """The six tiny scans, to be damaged."""
    return Path(shutil.copytree(tiny_dataset, tmp_path / "Task01_Bad"))


def get(path):
    return np.asarray(nib.load(path).dataobj)


def put(path, array, affine=SPACING):
    nib.save(nib.Nifti1Image(array, affine), path)


def add_case(dataset, case_id, suffix=".nii.gz", source="ball_000"):
    """Add another copy of a sound case to the dataset and return its image and its label file."""
    files = [dataset / f"{kind}Tr" / f"{case_id}{suffix}" for kind in ("images", "labels")]
    for path in files:
        put(path, get(path.with_name(f"{source}.nii.gz")))
    description = read_json(dataset / "dataset.json")
    entry = {kind: f"./{kind}sTr/{case_id}{suffix}" for kind in ("image", "label")}
    description["training"].append(entry)
    write_json(dataset / "dataset.json", description)
    return files


def files_of(folder):
    """Return the content of all files below a folder by relative name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def spoil(dataset):
    """Add one case of each kind of damage; return what its listed reason must say."""
    moved = SPACING.copy()
    moved[0, 3] = 5
    image, label = add_case(dataset, "moved")
    put(label, get(label), moved)
    image, label = add_case(dataset, "cropped")
    put(label, get(label)[:-1])
    image, label = add_case(dataset, "twofold")
    put(image, np.stack([get(image)] * 2, axis=-1))
    image, label = add_case(dataset, "undeclared")
    put(label, np.where(get(label) == 3, 9, get(label)))
    image, label = add_case(dataset, "between")
    put(label, get(label) / np.float32(2))
    image, label = add_case(dataset, "cut")
    image.write_bytes(image.read_bytes()[:5000])
    image, label = add_case(dataset, "thin", ".nii")
    header = bytearray(image.read_bytes())
    header[42:44] = struct.pack("<h", 0)
    image.write_bytes(header)
    image, label = add_case(dataset, "gone")
    image.unlink()
    image, label = add_case(dataset, "planar")
    for path in (image, label):
        put(path, get(path)[..., 4])
    image, label = add_case(dataset, "void")
    put(image, np.full((32, 32, 16), np.nan, np.float32))
    return {
        "moved": "moved.nii.gz: positions differ by 5 mm",
        "cropped": "cropped.nii.gz: sizes differ, 32 x 32 x 16 and 31 x 32 x 16 voxels",
        "twofold": "twofold.nii.gz: 2 channels, 1 are declared (MR)",
        "undeclared": "undeclared.nii.gz: label values [9] are not declared",
        "between": "no whole numbers",
        "cut": "cut.nii.gz: its gzip data are wrong",
        "thin": "thin.nii: ",
        "gone": "gone.nii.gz: does not exist",
        "planar": "2 spatial axes where most cases have 3",
        "void": "void.nii.gz: no voxel holds a finite number",
    }


def test_good_cases_go_on_and_bad_ones_are_listed_with_file_and_remedy(dataset, tmp_path):
    image = dataset / "imagesTr" / "ball_002.nii.gz"
    broken = get(image).copy()
    broken[:3, 0, 0] = [np.nan, np.inf, -np.inf]
    put(image, broken)
    label = dataset / "labelsTr" / "ball_003.nii.gz"
    put(label, np.zeros_like(get(label)))
    reasons, calls = spoil(dataset), []
    work = tmp_path / "work"
    result = prepare(dataset, work, workers=0, progress=lambda *call: calls.append(call))
    good = {f"ball_{number:03d}" for number in range(6)}
    assert {case.case_id for case in result.cohort.cases} == good
    assert result.excluded.keys() == reasons.keys()
    for case_id, reason in reasons.items():
        assert reason in result.excluded[case_id]
        assert result.excluded[case_id].endswith(".")
    odd = {facts.case_id: facts.oddities for facts in result.fingerprint.cases if facts.oddities}
    assert odd == {
        "ball_002": ("3 voxels are NaN or infinite",),
        "ball_003": ("the label is empty",),
    }
    assert {path.name for path in (work / "cases").iterdir()} == good
    assert np.isfinite(np.load(work / "cases" / "ball_002" / "image.npy")).all()
    assert not np.load(work / "cases" / "ball_003" / "label.npy").any()
    assert read_json(work / "excluded.json") == result.excluded
    everybody = {*result.folds[0].train, *result.folds[0].val}
    assert everybody == good
    assert calls[0] == (1, 16, "Reading")
    assert calls[-1] == (6, 6, "Preparing")
    assert not list(work.rglob(".part-*"))


def test_the_command_lists_them_too_and_its_status_says_so(dataset, tmp_path, cli):
    reasons = spoil(dataset)
    done = cli("prepare", dataset, "--out", tmp_path / "work", "--no-rehearse", "--workers", 0)
    assert done.exit_code == 1
    assert f"Left out: {len(reasons)}\n" in done.stderr
    for case_id, reason in reasons.items():
        assert case_id in done.stderr
        assert reason in done.stderr
    assert "ball_000" not in done.stderr
    assert "6 scans of 6 patients" in done.stdout


def test_tilted_scans_are_left_out_unless_they_may_be_resampled(dataset, tmp_path, cli):
    tilted = SPACING.copy()
    tilted[1, 2] = 0.6
    for path in add_case(dataset, "tilted"):
        put(path, get(path), tilted)
    done = cli("prepare", dataset, "--out", tmp_path / "without", "--no-rehearse", "--workers", 0)
    assert done.exit_code == 1
    assert "tilted.nii.gz: two axes are 16.7 degrees off a right angle" in done.stderr
    assert "Give --resample-oblique" in done.stderr
    work = tmp_path / "with"
    done = cli(
        "prepare", dataset, "--out", work, "--no-rehearse", "--workers", 0, "--resample-oblique"
    )
    assert done.exit_code == 0
    assert "tilted" in WorkFolder(work).cohort().as_dict()["cases"][-1]["case_id"]
    assert set(np.unique(np.load(work / "cases" / "tilted" / "label.npy"))) == {0, 1, 2}


def test_json_is_one_document(dataset, tmp_path, cli):
    reasons = spoil(dataset)
    done = cli(
        "prepare", dataset, "--out", tmp_path / "work", "--no-rehearse", "--workers", 0, "--json"
    )
    assert done.exit_code == 1
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["failures"].keys() == reasons.keys()
    assert document["num_cases"] == 6
    assert document["plan"]["patch_size"] == [32, 32, 16]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("labels", "all labels are empty"),
        ("images", "none of 6 cases can be used. ball_000: .*ball_000.nii.gz: is empty"),
        (
            "patients",
            "1 usable scan of 1 patient; .* 5 cannot be used: ball_001: .*is empty.*Add scans",
        ),
    ],
)
def test_a_dataset_of_no_use_is_one_clear_error_that_leaves_nothing(
    fault, message, dataset, tmp_path
):
    for path in sorted((dataset / "imagesTr").iterdir()):
        if fault == "images" or (fault == "patients" and path.name != "ball_000.nii.gz"):
            path.write_bytes(b"")
        if fault == "labels":
            put(dataset / "labelsTr" / path.name, np.zeros((32, 32, 16), np.uint8))
    with pytest.raises(DatasetError, match=message):
        prepare(dataset, tmp_path / "work", workers=0)
    assert not (tmp_path / "work").exists()


class TestAgain:
    """Running it again."""

    def test_keeps_what_is_done_and_gives_the_same_files(self, dataset, tiny_work, tmp_path):
        work = tmp_path / "work"
        prepare(dataset, work, num_folds=3, workers=0)
        times = {path: path.stat().st_mtime_ns for path in (work / "cases").rglob("*.npy")}
        image, _ = add_case(dataset, "new", source="ball_001")
        result = prepare(dataset, work, num_folds=3, workers=0)
        assert len(result.cohort.cases) == 7
        assert {path: path.stat().st_mtime_ns for path in times} == times
        for case in ("ball_000", "ball_005"):
            assert files_of(work / "cases" / case) == files_of(tiny_work / "cases" / case)

    def test_an_interrupted_one_is_not_taken_for_the_whole(self, dataset, tiny_work, tmp_path):
        work = Path(shutil.copytree(tiny_work, tmp_path / "work"))
        put(dataset / "imagesTr" / "ball_001.nii.gz", np.random.default_rng(9).random((32, 32, 16)))

        def stop(done, total, what):
            if (done, what) == (2, "Preparing"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(dataset, work, workers=0, progress=stop)
        with pytest.raises(DatasetError, match="not a prepared dataset.*Run lamina prepare"):
            WorkFolder(work).plan()
        prepare(dataset, work, workers=0)
        assert WorkFolder(work).plan().patch_size == (32, 32, 16)

    def test_one_that_fails_to_begin_leaves_the_earlier_result(self, tiny_work, tmp_path):
        work = Path(shutil.copytree(tiny_work, tmp_path / "work"))
        with pytest.raises(DatasetError, match="no such folder"):
            prepare(tmp_path / "misspelt", work)
        assert files_of(work) == files_of(tiny_work)

    def test_one_at_a_spacing_that_no_scan_fits_leaves_it_too(
        self, tiny_dataset, tiny_work, tmp_path
    ):
        work = Path(shutil.copytree(tiny_work, tmp_path / "work"))
        for out in (work, tmp_path / "fresh"):
            reason = "none of 6 cases can be used. ball_000: voxels of .* are over 32 times"
            with pytest.raises(DatasetError, match=reason):
                prepare(tiny_dataset, out, spacing=(100, 100, 100), workers=0)
        assert files_of(work) == files_of(tiny_work)
        assert not (tmp_path / "fresh").exists()

    def test_after_a_kill_gives_the_same_files(self, tiny_dataset, tiny_work, tmp_path):
        work = tmp_path / "work"
        with subprocess.Popen([sys.executable, "-c", SLOWLY, tiny_dataset, work]) as process:
            while not (work / "cases" / "ball_002").is_dir():
                assert process.poll() is None
                time.sleep(0.02)
            workers = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)
        assert len(workers) >= 2
        assert psutil.wait_procs(workers, timeout=20)[1] == []
        half = work / "cases" / ".part-0123abcd-ball_003"  # as a kill in the midst of one leaves it
        half.mkdir(exist_ok=True)
        (half / "image.npy").write_bytes(b"half")
        assert not (work / "splits.json").exists()
        prepare(tiny_dataset, work, num_folds=3, workers=0)
        assert files_of(work / "cases") == files_of(tiny_work / "cases")
        for name in ("dataset.json", "fingerprint.json", "splits.json"):
            assert (work / name).read_bytes() == (tiny_work / name).read_bytes()


SLOWLY = """
import sys, time
from pathlib import Path
from lamina.workflows.prepare import prepare
prepare(
    *map(Path, sys.argv[1:]), num_folds=3, workers=2,
    progress=lambda done, total, what: time.sleep(60 if (done, what) == (3, "Preparing") else 0),
)
"""


FILL = """
import subprocess, sys
from pathlib import Path
from lamina.cli.app import app
from typer.testing import CliRunner
dataset, mount = map(Path, sys.argv[1:])
arguments = ["prepare", str(dataset), "--out", str(mount / "work"), "--workers", "0"]
arguments += ["--no-rehearse"]
def go():
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    left = [path.name for path in mount.rglob(".*")]
    print(done.exit_code, len(list(mount.rglob("image.npy"))), left, done.stderr)
go()
subprocess.run(["mount", "-o", "remount,size=8m", mount], check=True)
go()
"""


def test_a_full_disk_is_one_clear_error_and_space_is_all_it_takes_to_go_on(tiny_dataset, tmp_path):
    mount = f"mount -t tmpfs -o size=400k tmpfs {tmp_path}"
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], check=False).returncode:
        pytest.skip("this system lets no ordinary user mount a file system of its own")
    script = f'{mount} && exec "$0" -c "$1" {tiny_dataset} {tmp_path}'
    done = subprocess.run(
        [*inside, script, sys.executable, FILL], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.split("\n0 6 [] ")
    status, count, left, message = first.split(" ", 3)
    assert (status, left) == ("2", "[]")
    assert 0 < int(count) < 6
    assert message.count("no space left on the disk") == message.count("Error") == 1
    assert "then run the same command again" in message
    assert second.strip() == ""


def test_a_place_that_cannot_be_written_is_one_clear_error(tiny_dataset, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileError, match=r"file: is a file\. Give another place"):
        prepare(tiny_dataset, tmp_path / "file" / "work", workers=0)


class TestBudget:
    """The memory that is granted."""

    def test_is_kept_to(self, tmp_path):
        write_phantom_dataset(tmp_path / "scans", 2)
        small = prepare(tmp_path / "scans", tmp_path / "work", ram_bytes=0.8e9, workers=0).plan
        large = prepare(tmp_path / "scans", tmp_path / "work", ram_bytes=8e9, workers=0).plan
        assert small.estimates["training_memory_gb"] * 2**30 <= 0.8e9
        assert np.prod(small.patch_size) < np.prod(large.patch_size)
        assert "0.1 GB of memory hold twice" in small.reasons["patch_size"]

    @pytest.mark.parametrize("vram", [None, 1e6])
    def test_that_is_too_small_is_refused(self, vram, tiny_dataset, tmp_path):
        with pytest.raises(ConfigError, match=r"memory|ram: 1 MB"):
            prepare(tiny_dataset, tmp_path / "w", ram_bytes=1e6, vram_bytes=vram, workers=0)
        assert not (tmp_path / "w").exists()

    def test_on_the_command_line(self, tiny_dataset, tmp_path, cli):
        done = cli("prepare", tiny_dataset, "--out", tmp_path / "w", "--no-rehearse", "--ram", "1M")
        assert done.exit_code == 2
        assert done.stderr == (
            "Error: ram: 1 MB; the program alone takes 700.\n  Grant at least 1 GB of ram.\n"
        )


def test_a_misspelt_network_is_refused_before_any_scan_is_read(dataset, tmp_path):
    shutil.rmtree(dataset / "imagesTr")
    with pytest.raises(UnknownNameError, match="Did you mean lightmedseg"):
        prepare(dataset, tmp_path / "work", model="lightmedsegg")


def test_images_are_prepared_as_volumes_are(tmp_path):
    write_phantom_dataset(tmp_path / "scans", 4, spatial_dims=2)
    result = prepare(tmp_path / "scans", tmp_path / "work", workers=0)
    assert result.plan.spatial_dims == len(result.plan.patch_size) == 2
    assert np.load(tmp_path / "work" / "cases" / "phantom_000" / "image.npy").ndim == 3
    assert not result.excluded


def test_worker_processes_change_nothing(tiny_dataset, tiny_work, tmp_path):
    prepare(tiny_dataset, tmp_path / "work", num_folds=3, workers=2)
    assert files_of(tmp_path / "work" / "cases") == files_of(tiny_work / "cases")


def subset(source, folder, count):
    """Link the first cases of a real dataset, as people do who have no disk to spare."""
    description = read_json(source / "dataset.json")
    description["training"] = description["training"][:count]
    for entry in description["training"]:
        for name in entry.values():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(source / name)
    write_json(folder / "dataset.json", description)
    return folder


def test_real_volumes(shared, tmp_path):
    dataset = subset(shared / "data" / "hippocampus", tmp_path / "hippocampus", 3)
    result = prepare(dataset, tmp_path / "work", workers=0)
    assert (result.excluded, len(result.folds)) == ({}, 3)
    assert result.plan.target_spacing == (1, 1, 1)
    assert result.plan.normalisation[0].scheme == "zscore"
    assert dict(result.plan.labels.values) == {"Anterior": 1, "Posterior": 2}
    for case in result.cohort.cases:
        image = np.load(tmp_path / "work" / "cases" / case.case_id / "image.npy")
        label = np.load(tmp_path / "work" / "cases" / case.case_id / "label.npy")
        assert abs(image.mean()) < 1e-3
        assert set(np.unique(label)) == {0, 1, 2}


def test_real_volumes_of_three_channels(shared, tmp_path):
    dataset = subset(shared / "data" / "sts_multimodal", tmp_path / "sts", 2)
    result = prepare(dataset, tmp_path / "work", workers=0)
    assert result.excluded == {}
    assert [how.scheme for how in result.plan.normalisation] == ["ct", "zscore", "zscore"]
    case = result.cohort.cases[0].case_id
    image = np.load(tmp_path / "work" / "cases" / case / "image.npy")
    assert (image.shape[0], image.dtype) == (3, np.float32)


@pytest.mark.parametrize("own", [True, False])
def test_folders_that_no_preparation_wrote_are_left_alone(own, dataset, tmp_path):
    out = dataset if own else tmp_path / "project"
    out.mkdir(exist_ok=True)
    (out / "dataset.json").touch()
    before = (out / "dataset.json").read_bytes()
    with pytest.raises(
        DatasetError, match="holds files that no preparation wrote|lies in the dataset"
    ):
        prepare(dataset, out)
    assert (out / "dataset.json").read_bytes() == before


def write_splits(folder, *folds):
    write_json(folder / "mine.json", folds)
    return folder / "mine.json"


def test_given_splits_are_followed_and_cases_on_no_side_not_looked_at(tiny_dataset, tmp_path):
    fold = {"train": ["ball_004", "ball_000"], "val": ["ball_001"], "test": ["ball_002"]}
    work = tmp_path / "work"
    result = prepare(tiny_dataset, work, splits=write_splits(tmp_path, fold), workers=0)
    assert read_json(work / "splits.json") == [fold]
    looked_at = {"ball_000", "ball_001", "ball_004"}
    assert {case.case_id for case in result.cohort.cases} == looked_at
    assert {path.name for path in (work / "cases").iterdir()} == looked_at
    assert [case.case_id for case in result.test] == ["ball_002"]
    kept = {case.case_id for case in WorkFolder(work).cohort().cases}
    assert kept == looked_at | {"ball_002"}


def test_unusable_cases_leave_given_splits(dataset, tmp_path):
    (dataset / "imagesTr" / "ball_000.nii.gz").write_bytes(b"")
    fold = {"train": ["ball_000", "ball_003"], "val": ["ball_001"]}
    splits = write_splits(tmp_path, fold)
    result = prepare(dataset, tmp_path / "work", splits=splits, workers=0)
    assert (result.folds[0].train, [*result.excluded]) == (("ball_003",), ["ball_000"])
    only = write_splits(tmp_path, fold | {"train": ["ball_000"]})
    with pytest.raises(DatasetError, match=r"folds \[0\]: no case to train on"):
        prepare(dataset, tmp_path / "other", splits=only, workers=0)


def test_splits_that_divide_a_patient_are_refused_before_reading_unless_allowed(
    dataset, tmp_path, cli
):
    add_case(dataset, "ball_000_visit2")
    divided = {"train": ["ball_000", "ball_001"], "val": ["ball_000_visit2"]}
    arguments = ["prepare", dataset, "--out", tmp_path / "work", "--no-rehearse", "--workers", 0]
    arguments += ["--splits", write_splits(tmp_path, divided)]
    refused = cli(*arguments)
    assert refused.exit_code == 2
    words = "patient ball_000 is on both sides of fold 0: train (ball_000), val (ball_000_visit2)."
    assert words in " ".join(refused.stderr.split())
    assert not (tmp_path / "work").exists()
    allowed = cli(*arguments, "--allow-leakage")
    assert (allowed.exit_code, words in " ".join(allowed.stdout.split())) == (0, True)


def test_folds_are_not_both_counted_and_given(tiny_dataset, tmp_path):
    fold = {"train": ["ball_004"], "val": ["ball_001"]}
    splits = write_splits(tmp_path, fold)
    with pytest.raises(ConfigError, match=r"3 folds: .*mine\.json has 1 already"):
        prepare(tiny_dataset, tmp_path / "work", num_folds=3, splits=splits)


def test_more_folds_than_patients_are_refused_only_where_asked_for(tiny_dataset, tmp_path):
    with pytest.raises(DatasetError, match="7 folds: there are 6 patients"):
        prepare(tiny_dataset, tmp_path / "work", num_folds=7, workers=0)
    assert len(prepare(tiny_dataset, tmp_path / "work", workers=0).folds) == 5


def test_folds_are_balanced_by_the_volumes_of_structures(tiny_dataset, tmp_path):
    result = prepare(tiny_dataset, tmp_path / "work", num_folds=3, workers=0)
    volumes = {
        f.case_id: {n: 2.0 * v for n, v in f.voxels.items()} for f in result.fingerprint.cases
    }
    assert result.folds == make_folds(result.cohort.cases, 3, strata=volumes)


@pytest.mark.parametrize("record", ["[]", "{}", "{"])
def test_a_prepared_case_whose_record_is_damaged_is_prepared_again(tiny_work, tmp_path, record):
    dataset, work = tiny_work.parent / "Task00_Tiny", tmp_path / "work"
    shutil.copytree(tiny_work, work)
    damaged = work / "cases" / "ball_000" / "case.json"
    damaged.write_text(record)
    prepare(dataset, work, ram_bytes=4e9, workers=0)
    assert "key" in read_json(damaged)


def test_a_scan_in_another_unit_is_left_out(dataset, tmp_path):
    for path in add_case(dataset, "metres"):
        put(path, get(path), SPACING @ np.diag([0.001, 0.001, 0.001, 1]))
    result = prepare(dataset, tmp_path / "work", workers=0)
    assert result.excluded.keys() == {"metres"}
    assert "over 32 times larger or smaller than the plan's" in result.excluded["metres"]
    assert len(result.cohort.cases) == 6


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_folds": 0}, "0 folds: at least 2 are needed"),
        ({"spacing": "1,1,1"}, "spacing = '1,1,1': 3 sizes above 0 are needed"),
        ({"spacing": "1,1"}, "spacing = '1,1': 3 sizes above 0 are needed"),
    ],
)
def test_wrong_numbers_are_refused(options, fault, tiny_dataset, tmp_path):
    with pytest.raises(ConfigError, match=fault):
        prepare(tiny_dataset, tmp_path / "work", workers=0, **options)
    assert not (tmp_path / "work").exists()


def test_another_dataset_is_not_written_over(tiny_dataset, tmp_path):
    prepare(tiny_dataset, tmp_path / "work", num_folds=3, workers=0)
    write_phantom_dataset(tmp_path / "scans", 2)
    with pytest.raises(DatasetError, match="holds another dataset, 'Tiny'"):
        prepare(tmp_path / "scans", tmp_path / "work", workers=0)


def test_pictures_without_a_pixel_size_are_planned_in_pixels(tmp_path):
    for number in range(5):
        picture = np.random.default_rng(number).integers(0, 255, (40, 40), np.uint8)
        for folder, values in (("images", picture), ("masks", 255 * (picture > 128))):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(values.astype(np.uint8))
            image.save(tmp_path / "set" / folder / f"case{number}.png")
    plan = prepare(tmp_path / "set", tmp_path / "work", workers=0).plan
    assert (plan.unit, plan.target_spacing) == ("px", (1.0, 1.0))


def test_a_cluster_prepares_the_same_though_a_worker_is_killed(tiny_dataset, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    killed, whole = tmp_path / "killed", preparing.prepare_case

    def killed_once(case, **settings):
        if case.case_id == "ball_003" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(case, **settings)

    prepare(tiny_dataset, tmp_path / "here", workers=0, ram_bytes=4e9)
    monkeypatch.setattr(preparing, "prepare_case", killed_once)
    prepare(tiny_dataset, tmp_path / "there", cluster="local:1", ram_bytes=4e9)
    assert killed.exists()
    here, there = files_of(tmp_path / "here"), files_of(tmp_path / "there")
    del here["plan.json"], there["plan.json"]  # they tell how fast this machine is just now
    assert there == here


def test_a_description_may_ask_for_regions(dataset, tmp_path):
    for kind, ending in (("images", "_0000"), ("labels", "")):
        folder = dataset / f"{kind}Tr"
        for path in sorted(folder.iterdir()):
            path.rename(folder / path.name.replace(".nii.gz", f"{ending}.nii.gz"))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "whole": [3, 7], "core": [7]},
        "regions_class_order": [3, 7],
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    write_json(dataset / "dataset.json", description)
    plan = prepare(dataset, out=tmp_path / "work", num_folds=2).plan
    assert plan.region_based
    assert plan.num_outputs == 2
    assert "description asks for it" in plan.reasons["region_based"]
    exclusive = prepare(dataset, out=tmp_path / "work3", model="mpunet", num_folds=2).plan
    assert not exclusive.region_based
    doctor(dataset, fix=tmp_path / "mended")
    mended = prepare(tmp_path / "mended", out=tmp_path / "work2", num_folds=2).plan
    assert mended.region_based
    assert mended.labels.regions == plan.labels.regions
