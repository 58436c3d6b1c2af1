"""Many scans: interrupted work goes on, two at once keep out of each other's way, memory holds."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lamina.errors import FileError, LaminaError
from lamina.files import locked, read_json
from lamina.geometry import affine_from
from lamina.inference.memory import held
from lamina.io import read_labels, read_volume, write_volume
from lamina.volume import Volume
from lamina.workflows.predict import predict
from lamina.workflows.steps import cluster


@pytest.fixture
def scans(tmp_path, tiny_dataset):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        shutil.copy(tiny_dataset / "imagesTr" / f"ball_{number:03d}.nii.gz", folder)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.nii.gz")}


def written_at(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.nii.gz")}


class TestResume:
    """What is done is not done again, and nothing that is not done is taken for it."""

    def test_only_what_is_missing_or_failed_is_made(self, scans, tiny_run, tmp_path, cli):
        out, calls = tmp_path / "out", []
        whole = (scans / "ball_001.nii.gz").read_bytes()
        (scans / "ball_001.nii.gz").write_bytes(whole[:100])
        assert predict(tiny_run, scans, out=out).failures
        before = written_at(out)
        (scans / "ball_001.nii.gz").write_bytes(whole)
        (out / "ball_002.nii.gz").unlink()
        result = predict(tiny_run, scans, out=out, resume=True, progress=lambda *c: calls.append(c))
        assert not result.failures
        assert [outcome.case_id for outcome in result.outcomes] == [
            f"ball_{number:03d}" for number in range(3)
        ]
        after = written_at(out)
        assert after["ball_000.nii.gz"] == before["ball_000.nii.gz"]
        assert after["ball_002.nii.gz"] != before["ball_002.nii.gz"]
        assert {what for _, _, what in calls} == {"ball_001", "ball_002"}
        assert calls[-1] == (3, 3, "ball_002")
        assert read_json(out / "prediction.json")["cases"] == result.as_dict()["cases"]
        done = cli("predict", "-m", tiny_run, "-i", scans, "-o", out, "--resume")
        assert done.exit_code == 0
        assert written_at(out) == after

    @pytest.mark.parametrize("change", ["settings", "scan", "nothing asked"])
    def test_other_settings_or_scans_are_segmented_again(self, scans, tiny_run, tmp_path, change):
        out = tmp_path / "out"
        predict(tiny_run, scans, out=out)
        before = written_at(out)
        later = time.time_ns() + 10**9
        if change == "scan":
            os.utime(scans / "ball_001.nii.gz", ns=(later, later))
        predict(
            tiny_run, scans, out=out, resume=change != "nothing asked", tta=change == "settings"
        )
        after = written_at(out)
        changed = {name for name in before if before[name] != after[name]}
        assert changed == ({"ball_001.nii.gz"} if change == "scan" else set(before))

    def test_a_scan_that_is_replaced_by_an_older_file_is_segmented_again(
        self, scans, tiny_run, tmp_path
    ):
        out, scan = tmp_path / "out", scans / "ball_001.nii.gz"
        predict(tiny_run, scans, out=out)
        before = written_at(out)
        shutil.copy(scans / "ball_002.nii.gz", scan)
        os.utime(scan, (0, 0))
        predict(tiny_run, scans, out=out, resume=True)
        after = written_at(out)
        assert {name for name in before if before[name] != after[name]} == {"ball_001.nii.gz"}

    def test_a_scan_that_is_replaced_while_it_is_segmented_is_not_taken_as_done(
        self, scans, tiny_run, tmp_path
    ):
        out, scan = tmp_path / "out", scans / "ball_001.nii.gz"

        def replace_it(done, count, what):
            if what == "ball_001" and scan.stat().st_mtime > 1:
                shutil.copy(scans / "ball_002.nii.gz", scan)
                os.utime(scan, (1, 1))

        predict(tiny_run, scans, out=out, progress=replace_it)
        assert scan.stat().st_mtime == 1
        assert not predict(tiny_run, scans, out=out, resume=True).failures
        found = contents(out)
        assert found["ball_001.nii.gz"] == found["ball_002.nii.gz"]

    @pytest.mark.parametrize("harm", ["deleted", "cut"])
    def test_a_scan_that_is_harmed_during_a_batch_fails_alone(
        self, scans, tiny_run, tmp_path, harm
    ):
        def harm_the_last(*_):
            if harm == "deleted":
                (scans / "ball_002.nii.gz").unlink(missing_ok=True)
            else:
                os.truncate(scans / "ball_002.nii.gz", 500)

        result = predict(tiny_run, scans, out=tmp_path, ram_bytes=64e9, progress=harm_the_last)
        assert result.failures.keys() == {"ball_002"}
        assert result.failures["ball_002"].startswith(str(scans / "ball_002.nii.gz"))
        assert contents(tmp_path).keys() == {"ball_000.nii.gz", "ball_001.nii.gz"}

    def test_a_batch_that_was_killed_ends_with_the_same_files(self, scans, tiny_run, tmp_path):
        for number in range(3, 40):
            shutil.copy(scans / "ball_000.nii.gz", scans / f"ball_{number:03d}.nii.gz")
        whole, out = tmp_path / "whole", tmp_path / "out"
        predict(tiny_run, scans, out=whole)
        arguments = ["predict", "-m", tiny_run, "-i", scans, "-o", out]
        program = [sys.executable, "-c", "from lamina.cli import main; main()", *arguments]
        with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            while len(contents(out)) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.kill()
        done = written_at(out)
        assert 3 <= len(done) < 40
        result = predict(tiny_run, scans, out=out, resume=True)
        assert not result.failures
        assert contents(out) == contents(whole)
        again = {name for name, at in written_at(out).items() if done.get(name, at) != at}
        assert len(again) <= 1
        assert not list(out.glob(".*"))


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from lamina.workflows.predict import predict
model, out, scans = map(Path, sys.argv[1:])
print(predict(model, scans, out=out).failures)
print(sorted(path.name for path in out.iterdir()))
"""


class TestTwoAtOnce:
    """In one folder."""

    def test_the_second_is_told(self, scans, tiny_run, tmp_path, cli):
        out = tmp_path / "out"
        with locked(out):
            done = cli("predict", "-m", tiny_run, "-i", scans, "-o", out)
        assert done.exit_code == 2
        assert f"{out}: another process is writing there. Wait" in " ".join(done.stderr.split())
        assert not out.exists()
        assert not predict(tiny_run, scans, out=out).failures

    def test_a_killed_process_keeps_nobody_out(self, tmp_path):
        script = (
            "import sys, time; from pathlib import Path; from lamina.files import locked\n"
            "with locked(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "in\n"
            with pytest.raises(FileError, match="another process"), locked(tmp_path):
                pass
            process.send_signal(signal.SIGKILL)
        with locked(tmp_path):
            pass


class TestProbabilities:
    """Beside each segmentation, on its grid."""

    def test_they_agree_with_the_segmentation(self, scans, tiny_run, tmp_path, cli):
        out = tmp_path / "out"
        done = cli("predict", "-m", tiny_run, "-i", scans, "-o", out, "--probabilities")
        assert done.exit_code == 0
        entry = read_json(out / "prediction.json")["cases"][0]
        assert entry["probabilities"] == "ball_000_probabilities.npy"
        told = np.load(out / entry["probabilities"]).astype(np.float32)
        found = read_labels(out / entry["segmentation"]).array[0]
        assert told.shape == (3, *found.shape)
        np.testing.assert_allclose(told.sum(0), 1, atol=2e-3)
        clear = np.ptp(np.sort(told, axis=0)[-2:], axis=0) > 2e-3
        np.testing.assert_array_equal(np.array([0, 3, 7])[told.argmax(0)][clear], found[clear])
        assert not predict(tiny_run, scans, out=out).failures
        assert not list(out.glob("*.npy"))

    def test_those_of_somebody_else_are_not_written_over(self, scans, tiny_run, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "ball_000_probabilities.npy").write_bytes(b"mine")
        with pytest.raises(LaminaError, match=r"ball_000_probabilities\.npy: would be written ov"):
            predict(tiny_run, scans, out=out, probabilities=True)
        assert (out / "ball_000_probabilities.npy").read_bytes() == b"mine"

    def test_another_format_beside_leaves_those_that_the_record_names(
        self, tiny_dataset, tiny_run, tmp_path
    ):
        scan, out = tmp_path / "ball.mha", tmp_path / "out"
        write_volume(read_volume(tiny_dataset / "imagesTr" / "ball_000.nii.gz"), scan)
        predict(tiny_run, scan, out=out, probabilities=True)
        before = (out / "ball_probabilities.npy").read_bytes()
        for again in (False, True):
            predict(tiny_run, scan, out=out, output_format="nifti", resume=again)
        cases = read_json(out / "prediction.json")["cases"]
        assert [case["segmentation"] for case in cases] == ["ball.mha", "ball.nii.gz"]
        assert [case["probabilities"] for case in cases] == ["ball_probabilities.npy", None]
        assert (out / "ball_probabilities.npy").read_bytes() == before
        scan.write_bytes(scan.read_bytes()[:100])
        assert predict(tiny_run, scan, out=out, output_format="nifti", probabilities=True).failures
        assert (out / "ball_probabilities.npy").read_bytes() == before

    def test_a_full_disk_is_told_before_the_scan_is_segmented(
        self, scans, tiny_run, tmp_path, monkeypatch
    ):
        def full(descriptor, start, size):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        result = predict(tiny_run, scans, out=tmp_path / "out", probabilities=True)
        assert len(result.failures) == 3
        told = tmp_path / "out" / "ball_000_probabilities.npy"
        assert result.failures["ball_000"].startswith(f"{told}: no space left on the disk.")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]

    def test_an_interrupted_batch_leaves_none_half_filled(self, scans, tiny_run, tmp_path):
        out = tmp_path / "out"

        def interrupt(done, count, what):
            if what == "ball_001":
                assert (out / ".part-ball_001_probabilities.npy").exists()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            predict(tiny_run, scans, out=out, probabilities=True, progress=interrupt)
        assert sorted(path.name for path in out.iterdir()) == [
            "ball_000.nii.gz",
            "ball_000_probabilities.npy",
            "prediction.json",
        ]


def test_a_full_disk_costs_the_scan_that_does_not_fit_and_no_other(tiny_run, tmp_path):
    """On a real file system of one megabyte."""
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    disk, scans = tmp_path / "disk", tmp_path / "scans"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {disk}"
    if not shutil.which("unshare") or subprocess.run([*inside, mount], check=False).returncode:
        pytest.skip("this system lets no ordinary user mount a file system of its own")
    for name, side in (("a", 32), ("b", 300), ("c", 32)):
        scan = Volume(np.zeros((1, side, side, 16)), affine_from((1, 1, 2)))
        scan.array[0, 8:24, 8:24, 4:12] = 1
        write_volume(scan, scans / f"{name}.nii")
    script = f'{mount} && exec "$0" -W error -c "$@"'
    arguments = [sys.executable, ON_A_FULL_DISK, *map(str, (tiny_run, disk / "out", scans))]
    done = subprocess.run(
        [*inside, script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    failures, left = done.stdout.splitlines()
    assert failures.startswith(f"{{'b': '{disk / 'out' / 'b.nii'}: no space left on the disk.")
    assert left == str(["a.nii", "c.nii", "prediction.json"])


def test_a_scan_beyond_the_memory_granted_is_refused_alone(scans, tiny_run, tmp_path, cli):
    large = Volume(np.ones((1, 400, 400, 200), np.uint8), affine_from((1, 1, 2)))
    large.array[0, 0, 0, 0] = 0
    write_volume(large, scans / "a_large.nii")
    limit = (held() + 200_000_000) // 1_000_000
    done = cli("predict", "-m", tiny_run, "-i", scans, "-o", tmp_path / "out", "--ram", f"{limit}M")
    assert done.exit_code == 1
    assert "a_large.nii: takes" in done.stderr
    assert "GB of memory to segment" in done.stderr
    assert len(contents(tmp_path / "out")) == 3


def test_mirror_images_are_looked_at_where_that_is_asked_for(scans, tiny_run, tmp_path, cli):
    shape = read_volume(scans / "ball_000.nii.gz").spatial_shape
    done = cli("predict", "-m", tiny_run, "-i", scans, "-o", tmp_path / "out", "--tta")
    assert done.exit_code == 0
    entry = read_json(tmp_path / "out" / "prediction.json")["cases"][0]
    assert entry["settings"]["tta"] is True
    assert read_labels(tmp_path / "out" / entry["segmentation"]).spatial_shape == shape


def test_a_cluster_segments_the_same_though_a_worker_is_killed(
    scans, tiny_run, tmp_path, monkeypatch
):
    pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    killed, whole = tmp_path / "killed", cluster._alone

    def killed_once(make, case):
        outcome = whole(make, case)
        if case.case_id == "ball_001" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    (scans / "ball_002.nii.gz").write_bytes(b"no scan")
    here = predict(tiny_run, scans, out=tmp_path / "here", probabilities=True)
    monkeypatch.setattr(cluster, "_alone", killed_once)
    out = tmp_path / "there"
    there = predict(tiny_run, scans, out=out, probabilities=True, cluster="local:1")
    assert killed.exists()
    assert there.failures == here.failures
    assert there.failures.keys() == {"ball_002"}
    assert contents(out) == contents(here.out)
    assert {path.name for path in out.iterdir()} == {path.name for path in here.out.iterdir()}
    before = written_at(out)
    predict(tiny_run, scans, out=out, probabilities=True, resume=True)
    assert written_at(out) == before
