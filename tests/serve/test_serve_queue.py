"""Jobs are neither lost nor done twice, whatever dies."""

import os
import signal
import time
from functools import partial

import pytest
from served import ended, serving, wait_for

from lamina.errors import FileError
from lamina.serve.jobs import Pool, Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "data", max_tries=2)
    store.prepare()
    return store


def submitted(store, job_id, name="scan.nii.gz", **options):
    folder = store.upload_folder(job_id)
    folder.mkdir(parents=True)
    (folder / "00000.nii.gz").write_bytes(b"scan")
    store.submit(job_id, "pretend", name, {folder / "00000.nii.gz": name}, **options)


def state(store, job_id):
    return store.job(job_id)["state"]


def test_the_oldest_job_comes_first_and_to_one_worker_alone(store):
    for job_id in "ab":
        submitted(store, job_id)
    assert [store.job(j)["position"] for j in "ab"] == [1, 2]
    work = store.claim("one")
    assert (work.job_id, work.model, list(work.files.values())) == ("a", "pretend", ["scan.nii.gz"])
    assert all(path.is_file() for path in work.files)
    assert store.claim("two").job_id == "b"
    assert store.claim("three") is None
    assert store.counts()["running"] == 2


def test_a_worker_taken_for_dead_cannot_touch_its_job_any_more(store):
    submitted(store, "a")
    store.claim("one")
    store.release("one")
    store.claim("two")
    assert not store.tell("a", "one", "segmenting", 0.9)
    store.finish("a", "one", {"files": []})
    store.fail("a", "one", FileError("no"))
    assert state(store, "a") == "running"
    assert store.tell("a", "two", "segmenting", 0.9)
    store.finish("a", "two", {"files": [], "flags": ["x"]})
    assert (state(store, "a"), store.job("a")["flags"]) == ("done", ["x"])


def test_a_job_whose_workers_die_is_given_up_after_some_tries(store):
    submitted(store, "a")
    submitted(store, "b")
    store.claim("one")
    store.release("one")
    assert store.job("a")["position"] == 1
    store.claim("two")
    store.release("two")
    assert state(store, "a") == "failed"
    assert "unexpectedly" in store.job("a")["error"]["message"]
    assert state(store, "b") == "queued"


def test_a_worker_that_is_stopped_uses_up_no_try(store):
    submitted(store, "a")
    for _ in range(5):
        store.claim("one")
        store.release("one", tried=False)
    assert state(store, "a") == "queued"


def test_what_was_being_done_when_the_server_died_is_done_by_the_next(store):
    submitted(store, "a")
    submitted(store, "b")
    store.claim("one")
    stray = store.upload_folder("c" * 32)
    stray.mkdir(parents=True)
    others = store.folder / "jobs" / "not ours"
    others.mkdir()
    again = Store(store.folder, max_tries=2)
    again.prepare()
    assert [state(again, j) for j in "ab"] == ["queued", "queued"]
    assert not stray.parent.exists()
    assert others.is_dir()
    assert again.claim("new").job_id == "a"


def test_what_nobody_waits_for_any_more_goes_with_the_server(store):
    for job_id in ("a" * 32, "b" * 32):
        submitted(store, job_id, hidden=True)
    submitted(store, "c" * 32)
    store.claim("one")
    again = Store(store.folder)
    again.prepare()
    assert [path.name for path in (store.folder / "jobs").iterdir()] == ["c" * 32]
    assert again.claim("new").job_id == "c" * 32
    assert again.claim("new") is None


def test_a_cancelled_job_stays_cancelled_when_its_worker_dies(store):
    submitted(store, "a")
    store.claim("one")
    store.cancel("a")
    assert not store.tell("a", "one", "segmenting", 0.5)
    store.release("one")
    assert state(store, "a") == "cancelled"
    store.cancel("a")
    assert store.claim("two") is None


def test_old_jobs_go_and_running_ones_stay(store):
    for job_id in "abc":
        submitted(store, job_id)
    store.claim("one")
    store.finish("a", "one", {"files": []})
    store.claim("one")
    time.sleep(0.01)
    store.sweep(keep_s=3600)
    assert state(store, "a") == "done"
    store.sweep(keep_s=0)
    assert store.job("a") is None
    assert [state(store, j) for j in "bc"] == ["running", "queued"]
    assert sorted(p.name for p in (store.folder / "jobs").iterdir()) == ["b", "c"]


def test_of_a_job_that_was_removed_its_name_is_in_no_file(store):
    for job_id, name in (("a", "Known^Nobody"), ("b", "another")):
        submitted(store, job_id, name)
    store.remove("a")
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    assert any(b"another" in path.read_bytes() for path in files)
    assert not any(b"Known^Nobody" in path.read_bytes() for path in files)


def test_the_queue_can_be_read_by_nobody_else(store):
    submitted(store, "a")
    for path in store.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_killed_worker_is_replaced_and_its_job_done_again(tmp_path, scan_bytes):
    with serving(tmp_path / "data") as client:
        files = {"files": ("endless.nii.gz", scan_bytes)}
        job = client.post("/api/jobs?model=pretend", files=files).json()
        url, store, pool = f"/api/jobs/{job['id']}", client.service.store, client.service.pool
        wait_for(lambda: client.get(url).json()["stage"] == "segmenting")
        os.kill(pool.pids[0], signal.SIGKILL)
        wait_for(lambda: pool.deaths == 1)
        wait_for(lambda: client.get(url).json()["stage"] == "segmenting")
        assert store.counts()["running"] == 1
        client.post(f"{url}/cancel")
        assert ended(client, job)["state"] == "cancelled"


def test_a_scan_that_kills_its_workers_is_given_up_and_the_next_is_done(tmp_path, scan_bytes):
    with serving(tmp_path / "data", max_tries=2) as client:
        jobs = [
            client.post("/api/jobs?model=pretend", files={"files": (name, scan_bytes)}).json()
            for name in ("killer.nii.gz", "scan.nii.gz")
        ]
        assert ended(client, jobs[0])["state"] == "failed"
        assert ended(client, jobs[1])["state"] == "done"
        assert client.service.pool.deaths == 2


def test_a_job_that_takes_too_long_is_ended(tmp_path, scan_bytes):
    with serving(tmp_path / "data", job_timeout_s=0.5) as client:
        files = {"files": ("deaf.nii.gz", scan_bytes)}
        job = ended(client, client.post("/api/jobs?model=pretend", files=files).json())
        assert job["state"] == "failed"
        assert "longer than 0.5 s" in job["error"]["message"]


def test_jobs_outlive_the_server(tmp_path, scan_bytes):
    with serving(tmp_path / "data") as client:
        names = ["first.nii.gz", "second.nii.gz", "third.nii.gz"]
        jobs = [
            client.post("/api/jobs?model=pretend", files={"files": (n, scan_bytes)}).json()
            for n in names
        ]
        client.service.stopping.set()
        refused = client.post("/api/jobs?model=pretend", files={"files": ("a.nii", b"")})
        assert refused.status_code == 503
    with serving(tmp_path / "data") as client:
        assert [ended(client, job)["state"] for job in jobs] == ["done"] * 3
        assert [job["name"] for job in client.get("/api/jobs").json()] == names[::-1]


def test_a_worker_that_cannot_start_is_tried_again_at_leisure(store):
    pool = Pool(store, partial(os._exit, 7), workers=1, timeout_s=9, sweep=store.sweep)
    pool.start()
    wait_for(lambda: pool.deaths == 2)
    pool.stop(0)
    assert pool._pause_s > 0.5
