"""Who is let in, and what every answer carries."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from served import BASE, TOKEN, TestClient, serving

from lamina.errors import ConfigError, DiskFullError
from lamina.files import writing
from lamina.serve import routes
from lamina.serve.server import address
from lamina.serve.settings import Settings

COOKIE = Settings(data=Path("data"), token=TOKEN).cookie


def test_nothing_is_told_without_the_token(client, stranger):
    paths = [
        "/",
        "/api/models",
        "/api/jobs",
        "/metrics",
        "/openapi.json",
        "/monailabel/info/",
        "/x",
    ]
    for path in paths:
        answer = stranger.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "token" in answer.json()["error"]["message"]
    files = {"files": ("a.nii", b"a" * 100_000)}
    assert stranger.post("/api/jobs?model=pretend", files=files).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer tok\u00e9n".encode()},
        {"Cookie": f"{COOKIE}=wrong"},
        {"Cookie": COOKIE},
        {"Cookie": f"lamina-9999={TOKEN}"},
    ],
)
def test_wrong_tokens_are_refused(stranger, headers):
    assert stranger.get("/api/models", headers=headers).status_code == 401


@pytest.mark.parametrize("other", ['{"a": "b c"}', "J\u00f6rg", "x[y", "a b"])
def test_cookies_of_other_programs_on_this_machine_keep_nobody_out(stranger, other):
    cookies = f"{other}; other={other}; {COOKIE}={TOKEN}".encode("latin-1")
    assert stranger.get("/api/models", headers={"Cookie": cookies}).status_code == 200


def test_made_up_methods_are_counted_as_one(client, stranger):
    for number in range(3):
        assert stranger.request(f"X{number}", "/healthz").status_code in (401, 405)
    counted = [line for line in client.get("/metrics").text.splitlines() if 'method="X' in line]
    assert not counted


def test_the_token_counts_in_an_address_of_the_page_alone(stranger):
    assert stranger.get(f"/api/models?token={TOKEN}").status_code == 401
    assert stranger.post(f"/?token={TOKEN}").status_code == 401
    assert stranger.get("/?token=wrong").status_code == 401


def test_a_person_without_a_token_is_told_what_to_do_in_words(stranger):
    answer = stranger.get("/", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "<p>Open the address that lamina serve printed" in answer.text
    assert stranger.get("/api/models", headers={"Accept": "text/html"}).json()["error"]


def test_the_page_makes_the_token_a_cookie(client, monkeypatch, tmp_path):
    (tmp_path / "index.html").write_text("<h1>page</h1>")
    monkeypatch.setattr(routes, "INDEX", tmp_path / "index.html")
    browser = TestClient(client.app, BASE)
    answer = browser.get(f"/?token={TOKEN}")
    assert answer.text == "<h1>page</h1>"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert browser.get("/api/models").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io"])
def test_other_names_for_the_server_are_refused(client, host):
    answer = client.get("/api/models", headers={"Host": host})
    assert answer.status_code == 403
    assert "name" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "192.168.1.5"])
def test_addresses_and_localhost_are_known(client, host):
    assert client.get("/api/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://["]
)
def test_pages_of_other_origins_are_refused(client, origin):
    answer = client.post("/api/jobs?model=pretend", headers={"Origin": origin})
    assert answer.status_code == 403
    assert client.get("/api/jobs", headers={"Origin": BASE}).status_code == 200


def test_every_answer_forbids_foreign_content(client, stranger):
    for answer in (client.get("/api/models"), stranger.get("/api/models"), client.get("/nowhere")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_fault_of_a_route_is_told_in_the_same_form(client, monkeypatch, caplog):
    def broken(*_):
        raise ValueError("Nobody^Known")

    monkeypatch.setattr(client.service.store, "jobs", broken)
    answer = client.get("/api/jobs")
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The server failed."
    assert "nosniff" in answer.headers["x-content-type-options"]
    assert "ValueError" in caplog.text
    assert "Nobody" not in caplog.text


def no_room_for_a_file():
    Path("/dev/full").write_text("full")


def no_room_for_a_file_of_ours():
    with writing(Path("upload.json")):
        no_room_for_a_file()


def no_room_for_what_another_library_writes():
    raise DiskFullError("a.nii: no space left on the disk.") from RuntimeError("not written")


def no_room_for_a_row():
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("PRAGMA max_page_count = 1")
        db.execute("CREATE TABLE jobs (id)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "fill",
    [
        no_room_for_a_file,
        no_room_for_a_file_of_ours,
        no_room_for_what_another_library_writes,
        no_room_for_a_row,
    ],
)
def test_a_disk_that_is_full_when_a_job_is_filed_is_told_as_such(client, monkeypatch, fill):
    monkeypatch.setattr(client.service.store, "submit", lambda *_, **__: fill())
    before = list((client.service.settings.data / "jobs").iterdir())
    answer = client.post("/api/jobs?model=pretend", files={"files": ("a.nii", b"voxels")})
    assert answer.status_code == 507
    told = answer.json()["error"]
    assert told == {"message": "The server's disk takes no more.", "remedy": "Try again later."}
    assert list((client.service.settings.data / "jobs").iterdir()) == before


def test_without_a_token_everybody_on_this_machine_is_let_in(tmp_path):
    with serving(tmp_path / "data", token=None) as client:
        open_to_all = TestClient(client.app, BASE)
        assert open_to_all.get("/api/models").status_code == 200
        assert open_to_all.get("/monailabel/auth/").json()["enabled"] is False


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "without a token"),
        ({"token": "short"}, "16"),
        ({"token": "a b/c?d&e=f#g%h+i"}, "letters"),
        ({"workers": 0}, "workers 0"),
        ({"port": 70000}, "port 70000"),
        *(({"allowed_hosts": (name,)}, "allow-host") for name in ("", "a:443", "https://a")),
    ],
)
def test_unsafe_settings_are_refused(tmp_path, settings, said):
    with pytest.raises(ConfigError, match=said):
        Settings(data=tmp_path, **settings)


def test_servers_of_different_tokens_do_not_share_a_cookie(tmp_path):
    """Two that listen on the same port within containers, or on any that is free."""
    names = {Settings(data=tmp_path, port=0, token=TOKEN + tail).cookie for tail in "abc"}
    assert len(names) == 3
    assert not any(TOKEN[:4] in name for name in names)


@pytest.mark.parametrize(
    "host", ["mybox:8000", "MyBox", "MYBOX.", "lamina.example", "Lamina.Example."]
)
def test_names_are_known_in_any_case_and_with_a_dot_at_the_end(tmp_path, host):
    told = {"host": "MyBox", "allowed_hosts": ("Lamina.example.",)}
    with serving(tmp_path / "data", **told) as client:
        assert client.get("/api/models", headers={"Host": host}).status_code == 200


def test_the_address_carries_the_token(tmp_path):
    kept = Settings(data=tmp_path, token=TOKEN, host="::1")
    assert address(kept, 8001) == f"http://[::1]:8001/?token={TOKEN}"
    assert address(Settings(data=tmp_path), 80) == "http://127.0.0.1:80/"
