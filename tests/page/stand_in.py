"""Stands in for the server: the same HTTP interface, and jobs that do what a test tells them."""

import email
import email.policy
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import lamina

STATIC = Path(lamina.__file__).parent / "serve" / "static"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
ENDED = ("done", "failed", "cancelled")


def model(name="abdomen", **changes):
    return {
        "name": name,
        "title": f"Segmentation by {name}",
        "card": "# Card\n\nText.",
        "labels": [{"name": "liver", "value": 1, "color": "#56b4e9"}],
        "channels": ["CT"],
        "spatial_dims": 3,
        "unit": "mm",
        "network": "glims",
        "size_bytes": 1_900_000,
        "scores": {"mean_dice": 0.91},
    } | changes


def job(number, **changes):
    return {
        "id": f"{number:032x}",
        "state": "queued",
        "progress": 0.0,
        "stage": "",
        "model": "abdomen",
        "name": f"scan {number}.nii.gz",
        "created": "2026-01-01T00:00:00+00:00",
        "started": None,
        "finished": None,
        "error": None,
        "position": 3,
        "structures": [],
        "flags": [],
        "affine": None,
        "files": [],
    } | changes


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, models=(), jobs=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = list(models)
        self.jobs = {each["id"]: each for each in jobs}
        self.uploads, self.fields, self.sizes, self.removed = [], [], [], []
        self.changed = threading.Condition()
        self.refusal = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def tell(self, job_id, **changes):
        """Change a job; who follows it hears of that."""
        with self.changed:
            self.jobs[job_id] |= changes
            self.changed.notify_all()

    def refuse(self, refusal):
        """Refuse everything, as a proxy does while its server is away; ``None`` ends that."""
        with self.changed:
            self.refusal = refusal
            self.changed.notify_all()


@contextmanager
def running(server):
    """Run a server beside the test."""
    with server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        parts = urlsplit(self.path).path.strip("/").split("/")
        if self.server.refusal and parts[0] == "api":
            self.send(self.server.refusal, 503)
        elif parts == [""] or parts[0] == "static":
            file = STATIC / (parts[-1] or "index.html")
            self.send(file.read_bytes(), kind=TYPES.get(file.suffix, "text/plain"))
        elif parts == ["api", "models"]:
            self.send(self.server.models)
        elif parts == ["api", "jobs"]:
            self.send(list(self.server.jobs.values())[::-1])
        elif parts[-1] == "events":
            self.stream(parts[2])
        elif found := self.server.jobs.get(parts[2]):
            self.send(found)
        else:
            self.send({"error": {"message": "There is no such job.", "remedy": "Look."}}, 404)

    def do_POST(self):
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if address.path.endswith("/cancel"):
            job_id = address.path.split("/")[-2]
            self.server.tell(job_id, state="cancelled", position=None)
            self.send(self.server.jobs[job_id])
            return
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts()
        parts = list(parts)
        files = {part.get_filename(): part.get_payload(decode=True) for part in parts}
        fields = {p.get_param("name", header="content-disposition"): p for p in parts}
        self.server.fields.append({name: part.get_filename() for name, part in fields.items()})
        query = parse_qs(address.query)
        self.server.uploads.append((query["model"][0], files))
        self.server.sizes.append(query.get("pixel_size", [None])[0])
        made = job(len(self.server.jobs) + 1, name=next(iter(files)))
        self.server.jobs[made["id"]] = made
        self.send(made, 202)

    def do_DELETE(self):
        job_id = self.path.split("/")[-1]
        self.server.removed.append(job_id)
        del self.server.jobs[job_id]
        self.send_response(204)
        self.end_headers()

    def send(self, data, status=200, kind="application/json"):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, job_id):
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        with self.server.changed:
            while not self.server.refusal and (found := self.server.jobs.get(job_id)):
                self.wfile.write(f"data: {json.dumps(found)}\n\n".encode())
                self.wfile.flush()
                if found["state"] in ENDED or not self.server.changed.wait(30):
                    return
