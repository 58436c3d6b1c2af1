"""What the page and programs ask for, and what they get."""

import gzip
import re

import pytest
from served import ended, events, serving, wait_for, zipped


def message(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "remedy"}
    return error["message"]


def test_models_are_listed_with_card_and_colours(client):
    model, _ = client.get("/api/models").json()
    assert (model["name"], model["channels"], model["scores"]) == ("pretend", ["CT"], None)
    assert model["labels"][1] == {"name": "core", "value": 7, "color": "#e69f00"}
    assert model["card"].startswith("# Segmentation")


def test_a_scan_becomes_a_job_that_ends_with_files(client, send):
    job = send("Case 7/scan.nii.gz")
    assert (job["state"], job["name"], job["model"]) == ("queued", "scan.nii.gz", "pretend")
    told = events(client, job)
    assert [each["state"] for each in told][-1] == "done"
    progress = [each["progress"] for each in told]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    done = told[-1]
    assert done["structures"][0]["flags"] == ["in 2 pieces"]
    assert (done["flags"], done["affine"][2][2]) == (["look at it"], 3.0)
    assert done["created"] <= done["started"] <= done["finished"]
    assert client.get(f"/api/jobs/{job['id']}").json() == done
    assert client.get("/api/jobs").json()[0] == done
    found = {file["name"]: file for file in done["files"]}
    answer = client.get(f"/api/jobs/{job['id']}/files/segmentation.nii.gz")
    assert found["segmentation.nii.gz"]["size_bytes"] == len(answer.content)
    assert gzip.decompress(answer.content)
    assert answer.headers["content-disposition"].startswith("attachment")
    page = client.get(f"/api/jobs/{job['id']}/files/report.html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert "'self'" not in page.headers["content-security-policy"]


def test_a_zip_is_a_folder_of_files(client, send, scan_bytes):
    packed = zipped([("Thorax/", b""), ("Thorax/.DS_Store", b"x"), ("Thorax/a.nii.gz", scan_bytes)])
    job = ended(client, send("Thorax.zip", packed))
    assert (job["state"], job["name"]) == ("done", "Thorax.zip")


def test_several_files_are_called_after_their_folder(client, scan_bytes):
    files = [("files", (f"Study 1/{n}.nii.gz", scan_bytes)) for n in range(2)]
    job = client.post("/api/jobs?model=pretend", files=files).json()
    assert job["name"] == "Study 1"
    assert ended(client, job)["state"] == "done"


def test_fields_named_after_channels_say_which_file_is_which(client, scan_bytes):
    def sent(*fields):
        files = [(field, (f"{field} 2.nii.gz", scan_bytes)) for field in fields]
        return client.post("/api/jobs?model=pair", files=files)

    assert ended(client, sent("T2", "T1").json())["flags"][1:] == ["T1 2.nii.gz", "T2 2.nii.gz"]
    assert ended(client, sent("files", "files").json())["flags"][1:] == []
    for fields in (("T1",), ("T1", "files"), ("T1", "T2", "T2"), ("T1", "T2", "files")):
        answer = sent(*fields)
        assert "Not each channel has one file" in message(answer, 422)
        assert answer.json()["error"]["remedy"] == "Send one for each of: T1, T2."


def test_the_size_of_pixels_reaches_the_worker(client, scan_bytes):
    def sent(size):
        files = [("files", ("head.nii.gz", scan_bytes))]
        return client.post(f"/api/jobs?model=pair&pixel_size={size}", files=files)

    assert ended(client, sent("0.125").json())["flags"][1:] == ["pixels of 0.125 mm"]
    for wrong in ("0", "-1", "nan", "inf", "wide"):
        assert "pixel_size" in message(sent(wrong), 422)


def test_a_job_that_fails_says_why(client, send):
    job = ended(client, send("damaged.nii.gz"))
    assert job["state"] == "failed"
    assert job["error"] == {"message": "damaged.nii.gz: is damaged.", "remedy": "Send it again."}
    assert job["files"] == []


def test_a_fault_of_the_program_keeps_what_it_says_to_itself(client, send):
    job = ended(client, send("bug.nii.gz"))
    assert job["state"] == "failed"
    assert "ValueError" in job["error"]["message"]
    assert "patient" not in str(job)


def test_a_running_job_is_cancelled_and_the_next_is_done(client, send):
    job, waiting = send("endless.nii.gz"), send()
    url = f"/api/jobs/{job['id']}"
    wait_for(lambda: client.get(url).json()["state"] == "running")
    assert client.get(f"/api/jobs/{waiting['id']}").json()["position"] == 1
    answer = client.post(f"{url}/cancel").json()
    assert answer["stage"] == "cancelling" or answer["state"] == "cancelled"
    assert ended(client, job)["state"] == "cancelled"
    assert ended(client, waiting)["state"] == "done"
    assert client.post(f"/api/jobs/{waiting['id']}/cancel").json()["state"] == "done"


def test_a_waiting_job_is_cancelled_at_once(client, send):
    busy, job = send("endless.nii.gz"), send()
    assert client.post(f"/api/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/api/jobs/{busy['id']}").status_code == 204


def test_a_removed_job_is_gone_with_its_files(client, send):
    job = ended(client, send())
    folder = client.service.settings.data / "jobs" / job["id"]
    assert folder.is_dir()
    answer = client.delete(f"/api/jobs/{job['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not folder.exists()
    for path in ("", "/events", "/files/segmentation.nii.gz"):
        message(client.get(f"/api/jobs/{job['id']}{path}"), 404)


def test_a_running_job_is_removed_once_its_worker_has_left_it(client, send):
    job = send("endless.nii.gz")
    wait_for(lambda: client.get(f"/api/jobs/{job['id']}").json()["state"] == "running")
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    message(client.get(f"/api/jobs/{job['id']}"), 404)
    wait_for(lambda: client.service.store.counts()["running"] == 0)
    client.service.store.sweep()
    assert not (client.service.settings.data / "jobs" / job["id"]).exists()


@pytest.mark.parametrize("name", ["../jobs.sqlite", "..%2F..%2Fjobs.sqlite", "upload.json", "%00"])
def test_no_file_but_those_of_the_job_can_be_had(client, send, name):
    job = ended(client, send())
    message(client.get(f"/api/jobs/{job['id']}/files/{name}"), 404)
    message(client.get(f"/api/jobs/../{name}"), 404)


def test_names_lead_nowhere(client, send, scan_bytes):
    data = client.service.settings.data
    packed = zipped([("../../../evil.nii.gz", scan_bytes)])
    for name, content in [
        ("../../evil.nii.gz", None),
        ("/tmp/evil.nii.gz", None),
        ("a.zip", packed),
    ]:
        job = ended(client, send(name, content))
        assert job["state"] == "done"
        assert "/" not in job["name"]
    assert not list(data.parent.rglob("*evil*"))


def test_what_is_not_understood_is_refused_in_one_form(client, scan_bytes):
    files = {"files": ("scan.nii.gz", scan_bytes)}
    assert "no such model" in message(client.post("/api/jobs?model=other", files=files), 404)
    assert "model" in message(client.post("/api/jobs", files=files), 422)
    assert "multipart" in message(client.post("/api/jobs?model=pretend", content=b"x"), 415)
    assert "No file" in message(
        client.post("/api/jobs?model=pretend", files={"a": (None, "b")}), 422
    )
    cut = {"content-type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\nabc'
    assert "too early" in message(
        client.post("/api/jobs?model=pretend", content=body, headers=cut), 400
    )
    wrong = client.post("/api/jobs?model=pretend", content=b"no form", headers=cut)
    assert "malformed" in message(wrong, 400)
    message(client.get("/api/jobs/0"), 422)
    message(client.get(f"/api/jobs/{'0' * 32}"), 404)
    message(client.get("/nowhere"), 404)
    wrong = client.put("/api/jobs")
    message(wrong, 405)
    assert wrong.headers["allow"] == "GET, POST"
    wrong = client.put("/monailabel/auth/token")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    message(client.get("/docs"), 404)


def test_refused_uploads_leave_nothing(client, scan_bytes):
    folder = client.service.settings.data / "jobs"
    before = set(folder.iterdir())
    two = [("files", ("a.zip", zipped([]))), ("files", ("b.nii", b""))]
    assert "alone" in client.post("/api/jobs?model=pretend", files=two).json()["error"]["remedy"]
    bomb = {"files": ("bomb.zip", zipped([("zeros.nii", b"\0" * (8 << 20))]))}
    assert "grows" in message(client.post("/api/jobs?model=pretend", files=bomb), 400)
    assert set(folder.iterdir()) == before


def in_pieces(body, size=1 << 12):
    """Send a body whose length is not told."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_limits_hold_whether_the_length_is_told_or_not(tmp_path, scan_bytes):
    with serving(tmp_path / "data", max_upload_bytes=20_000, max_files=3) as client:
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\n'
        body = head + b"a" * 30_000 + b"\r\n--x--\r\n"
        kind = {"content-type": "multipart/form-data; boundary=x"}
        for content in (body, in_pieces(body)):
            answer = client.post("/api/jobs?model=pretend", content=content, headers=kind)
            assert "larger than 20,000 bytes" in message(answer, 413)
        many = [("files", (f"{n}.nii", b"")) for n in range(4)]
        assert "more than 3 files" in message(
            client.post("/api/jobs?model=pretend", files=many), 413
        )
        field = {"files": (None, "a" * 17_000 * 4)}
        message(client.post("/api/jobs?model=pretend", files=field), 413)
        assert list((tmp_path / "data" / "jobs").iterdir()) == []


def test_an_upload_that_the_disk_has_no_room_for_is_sent_away(tmp_path, scan_bytes):
    with serving(tmp_path / "data", max_upload_bytes=10**18) as client:
        files = {"files": ("scan.nii.gz", scan_bytes)}
        told = {"content-length": str(10**17)}
        for path in ("/api/jobs?model=pretend", "/monailabel/session/"):
            send = client.post if "jobs" in path else client.put
            refused = send(path, files=files, headers=told)
            assert "disk is full" in message(refused, 503)
            assert send(path, files=files).is_success


def test_a_part_of_a_form_has_a_head_of_bounded_length(client):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for more in (b"X-A: " + b"a" * 20_000 + b"\r\n", b"X-A: a\r\n" * 1000):
        body = head + more + b"\r\nvoxels\r\n--x--\r\n"
        answer = client.post("/api/jobs?model=pretend", content=body, headers=kind)
        assert "malformed" in message(answer, 400)


def test_a_full_queue_sends_away_and_says_when_to_come_again(tmp_path, scan_bytes):
    with serving(tmp_path / "data", max_queue=2) as client:
        files = {"files": ("endless.nii.gz", scan_bytes)}
        answers = [client.post("/api/jobs?model=pretend", files=files) for _ in range(8)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[:2] == [202, 202]
        assert set(statuses) == {202, 503}
        refused = answers[statuses.index(503)]
        assert "waiting" in message(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
        for answer in answers:
            if answer.status_code == 202:
                assert client.delete(f"/api/jobs/{answer.json()['id']}").status_code == 204
        assert (
            ended(
                client,
                client.post(
                    "/api/jobs?model=pretend", files={"files": ("a.nii.gz", scan_bytes)}
                ).json(),
            )["state"]
            == "done"
        )


def test_health_and_figures(client, send, stranger):
    assert stranger.get("/healthz").json() == {"status": "ok"}
    wait_for(lambda: stranger.get("/readyz").status_code == 200)
    ended(client, send())
    text = client.get("/metrics").text
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? [-+.e\d]+', line), (
            line
        )
    assert re.search(r'^lamina_jobs\{state="done"\} [1-9]', text, re.M)
    assert re.search(r"^lamina_workers_ready 1$", text, re.M)
    assert 'route="/api/jobs/{job_id}/events",status="200"' in text
    message(stranger.get("/metrics"), 401)
