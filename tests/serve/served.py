"""A server within the test process, its worker a process of its own that only pretends to work."""

import io
import json
import time
import warnings
import zipfile
from contextlib import contextmanager

from pretend_jobs import MODELS, make_job

from lamina.serve.app import create_app
from lamina.serve.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that httpx2 would do better than httpx
    from starlette.testclient import TestClient

TOKEN = "0123456789abcdef"
BASE = "http://127.0.0.1:8000"


@contextmanager
def serving(folder, **settings):
    """Run a server; its client shows the token."""
    app = create_app(Settings(**{"data": folder, "token": TOKEN} | settings), MODELS, make_job)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app, BASE, headers=headers) as client:
        client.service = app.state.service
        yield client


def events(client, job):
    """Follow a job to its end; return what was told on the way."""
    answer = client.get(f"/api/jobs/{job['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def ended(client, job):
    return events(client, job)[-1]


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def zipped(members, **options):
    """Return a zip archive of names and contents."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()
