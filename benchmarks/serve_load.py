"""Load a server with clients, then let it run while its processes are killed.

    python benchmarks/serve_load.py model.lamina --out docs/serving.json

Two parts, each with a server of its own. *Load*: many clients send a made-up scan each, wait for
its segmentation and send the next; a queue that is full sends them away, and they come again.
*Soak*: a few clients do the same while workers are killed (SIGKILL) at random moments and the
server is ended in turn by SIGTERM and SIGKILL and started again. At the end every job that was
accepted must have ended, with the same file; what has not is lost. Exits with 1 where any is.
"""

import argparse
import hashlib
import json
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil

from lamina import __version__
from lamina.io import write_volume
from lamina.volume import Volume

TOKEN = "0123456789abcdef"
ENDED = ("done", "failed", "cancelled")
SIZE = (20, 20, 16)
SAMPLE_S = 2.0
PATIENCE_S = 900.0


@dataclass
class Tally:
    """What clients saw; shared by their threads."""

    accepted: dict[str, float] = field(default_factory=dict)
    ended: dict[str, tuple[str, float]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)


class Server:
    """A server in a process of its own, that can be killed and started again."""

    def __init__(self, model: Path, folder: Path, port: int, workers: int, max_queue: int) -> None:
        options = {
            "--models": model,
            "--data": folder,
            "--port": port,
            "--workers": workers,
            "--max-queue": max_queue,
            "--max-tries": 20,
            "--token": TOKEN,
        }
        words = [str(word) for pair in options.items() for word in pair]
        self.command = [sys.executable, "-m", "lamina", "serve", *words]
        self.url = f"http://127.0.0.1:{port}"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it and wait until it takes jobs."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return self.process
            time.sleep(0.2)
        sys.exit("The server did not start.")

    def stop(self) -> int:
        """Have it end in order, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def client(self) -> httpx.Client:
        """Return a client that shows the token."""
        header = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.url, headers=header, timeout=60)

    def workers(self) -> list[psutil.Process]:
        """Return its workers."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
            return [each for each in found if "spawn_main" in " ".join(each.cmdline())]
        return []

    def megabytes(self) -> tuple[float, float] | None:
        """Return the memory of the server and of all workers."""
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.process.pid).memory_info().rss
            return own / 1e6, sum(each.memory_info().rss for each in self.workers()) / 1e6
        return None


def main() -> None:
    """Run both parts, and leave their record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--load-seconds", type=float, default=120.0)
    parser.add_argument("--soak-seconds", type=float, default=180.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-queue", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("serving.json"))
    given = parser.parse_args()
    with TemporaryDirectory() as scratch:
        scan = made_up_scan(Path(scratch) / "scan.nii.gz")
        load = run_load(given, scan, Path(scratch) / "load")
        soak = run_soak(given, scan, Path(scratch) / "soak")
    record = {"machine": machine(), "load": load, "soak": soak}
    given.out.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))
    sys.exit(load["lost"] + soak["lost"] + load["differing"] + soak["differing"] > 0)


def run_load(given: argparse.Namespace, scan: bytes, folder: Path) -> dict[str, Any]:
    """Let many clients at a server that nobody disturbs."""
    server = Server(given.model, folder, free_port(), given.workers, given.max_queue)
    tally, stop, memory = Tally(), threading.Event(), list[tuple[float, float]]()
    clients = [
        threading.Thread(target=visit, args=(server, tally, scan, stop))
        for _ in range(given.clients)
    ]
    began = time.monotonic()
    for each in clients:
        each.start()
    sampled(server, given.load_seconds, memory)
    stop.set()
    for each in clients:
        each.join()
    seconds = time.monotonic() - began
    found = settle(server, tally)
    return summary(tally, found, seconds, memory) | {
        "clients": given.clients,
        "workers": given.workers,
        "max_queue": given.max_queue,
        "exit_status": server.stop(),
    }


def run_soak(given: argparse.Namespace, scan: bytes, folder: Path) -> dict[str, Any]:
    """Let a few clients at a server whose processes are killed."""
    server = Server(given.model, folder, free_port(), given.workers, given.max_queue)
    tally, stop, memory = Tally(), threading.Event(), list[tuple[float, float]]()
    clients = [threading.Thread(target=visit, args=(server, tally, scan, stop)) for _ in range(6)]
    for each in clients:
        each.start()
    chance, kills, restarts = random.Random(given.seed), 0, Counter[str]()
    began, end = time.monotonic(), time.monotonic() + given.soak_seconds
    while time.monotonic() < end:
        sampled(server, chance.uniform(8, 25), memory)
        if chance.random() < 0.4:
            how = (signal.SIGTERM, signal.SIGKILL)[restarts.total() % 2]
            server.process.send_signal(how)
            server.process.wait()
            restarts[how.name] += 1
            server.start()
        elif workers := server.workers():
            with suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()
                kills += 1
    stop.set()
    for each in clients:
        each.join()
    seconds = time.monotonic() - began
    found = settle(server, tally)
    return summary(tally, found, seconds, memory) | {
        "clients": len(clients),
        "workers_killed": kills,
        "server_restarts": dict(restarts),
        "exit_status": server.stop(),
    }


def visit(server: Server, tally: Tally, scan: bytes, stop: threading.Event) -> None:
    """Be a client: send, wait, fetch, until told to stop; come again after any trouble."""
    with server.client() as client:
        while not stop.is_set():
            try:
                job = sent(client, tally, scan, stop)
                if job is not None:
                    awaited(client, tally, job, stop)
            except httpx.HTTPError:
                tally.answers["no connection"] += 1
                stop.wait(0.5)


def sent(client: httpx.Client, tally: Tally, scan: bytes, stop: threading.Event) -> str | None:
    """Send a scan; return its job unless there is no room."""
    answer = client.post("/api/jobs?model=model", files={"files": ("scan.nii.gz", scan)})
    tally.answers[str(answer.status_code)] += 1
    if answer.status_code == 503:
        stop.wait(float(answer.headers["retry-after"]) * random.uniform(0.5, 1))
        return None
    answer.raise_for_status()
    job = str(answer.json()["id"])
    tally.accepted[job] = time.monotonic()
    return job


def awaited(client: httpx.Client, tally: Tally, job: str, stop: threading.Event) -> None:
    """Wait for a job, through restarts of the server, and fetch what it left."""
    while not stop.is_set():
        with suppress(httpx.HTTPError):
            found = client.get(f"/api/jobs/{job}")
            if found.status_code == 200 and found.json()["state"] in ENDED:
                note(client, tally, job, found.json()["state"])
                return
        stop.wait(0.5)


def note(client: httpx.Client, tally: Tally, job: str, state: str) -> None:
    """Note how a job ended, and the hash of its segmentation."""
    if state == "done":
        content = client.get(f"/api/jobs/{job}/files/segmentation.nii.gz").content
        tally.files[job] = hashlib.sha256(content).hexdigest()
    tally.ended[job] = state, time.monotonic()


def settle(server: Server, tally: Tally) -> dict[str, str]:
    """Wait until no job is under way; return the state of each that was accepted."""
    end, states = time.monotonic() + PATIENCE_S, dict[str, str]()
    with server.client() as client:
        while time.monotonic() < end:
            states = {job: state_of(client, job) for job in tally.accepted}
            if not set(states.values()) & {"queued", "running"}:
                break
            time.sleep(1.0)
        for job in states.keys() - tally.files.keys():
            note(client, tally, job, states[job])
    return states


def state_of(client: httpx.Client, job: str) -> str:
    """Return the state of a job, or that it is lost."""
    answer = client.get(f"/api/jobs/{job}")
    return str(answer.json()["state"]) if answer.status_code == 200 else "lost"


def sampled(server: Server, seconds: float, memory: list[tuple[float, float]]) -> None:
    """Wait, and note the memory meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := server.megabytes():
            memory.append(found)
        time.sleep(min(SAMPLE_S, max(0.0, end - time.monotonic())))


def summary(
    tally: Tally, states: dict[str, str], seconds: float, memory: list[tuple[float, float]]
) -> dict[str, Any]:
    """Return the figures of one part."""
    waits = [tally.ended[j][1] - tally.accepted[j] for j in tally.ended if j in tally.accepted]
    ended = Counter(states.values())
    return {
        "seconds": round(seconds, 1),
        "accepted": len(tally.accepted),
        "answers": dict(sorted(tally.answers.items())),
        "states": dict(ended),
        "lost": sum(count for state, count in ended.items() if state not in ENDED),
        "differing": max(0, len(set(tally.files.values())) - 1),
        "median_wait_s": round(statistics.median(waits), 1) if waits else None,
        "server_mb": over_time([own for own, _ in memory]),
        "workers_mb": over_time([workers for _, workers in memory]),
    }


def over_time(values: list[float]) -> list[float]:
    """Return the median of each quarter."""
    quarters = [part for part in np.array_split(values, 4) if len(part)]
    return [round(float(np.median(part))) for part in quarters]


def made_up_scan(path: Path) -> bytes:
    """Return a file of noise."""
    noise = np.random.default_rng(0).normal(100, 9, (1, *SIZE)).astype(np.float32)
    write_volume(Volume(noise, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path.read_bytes()


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def machine() -> dict[str, Any]:
    """Return what this was measured on."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "lamina": __version__,
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
