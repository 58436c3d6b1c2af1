"""What Prometheus is told, in its text format.

Source: "Exposition formats", prometheus.io/docs/instrumenting/exposition_formats.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

import psutil

from lamina import __version__
from lamina.serve.jobs import Pool, Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Samples = Iterable[tuple[Mapping[str, str], float]]


class Requests:
    """Counts answers, by method, route and status."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._seconds: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one."""
        with self._lock:
            self._counts[method, route, status] += 1
            self._seconds[method, route] += seconds  # type: ignore[assignment]

    def counted(self) -> _Samples:
        """Return how many there were."""
        with self._lock:
            found = dict(self._counts)
        for (method, route, status), count in found.items():
            yield {"method": method, "route": route, "status": str(status)}, count

    def timed(self) -> _Samples:
        """Return how long they took together, in seconds."""
        with self._lock:
            found = dict(self._seconds)
        for (method, route), seconds in found.items():
            yield {"method": method, "route": route}, seconds


def exposition(store: Store, pool: Pool, requests: Requests) -> str:
    """Return the page that Prometheus reads."""
    jobs = [({"state": state}, float(count)) for state, count in store.counts().items()]
    families: list[tuple[str, str, str, _Samples]] = [
        ("lamina_info", "gauge", "Version.", [({"version": __version__}, 1)]),
        ("lamina_jobs", "gauge", "Jobs that are kept, by state.", jobs),
        ("lamina_workers", "gauge", "Workers.", [({}, pool.size)]),
        ("lamina_workers_ready", "gauge", "Workers that take jobs.", [({}, pool.num_ready)]),
        ("lamina_worker_deaths_total", "counter", "Workers that died.", [({}, pool.deaths)]),
        ("lamina_resident_bytes", "gauge", "Memory of each process.", _resident(pool)),
        ("lamina_http_requests_total", "counter", "Answers.", requests.counted()),
        ("lamina_http_seconds_total", "counter", "Time that they took.", requests.timed()),
    ]
    lines = []
    for name, kind, what, samples in families:
        lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {value:g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _resident(pool: Pool) -> _Samples:
    yield {"process": "server"}, psutil.Process().memory_info().rss
    for number, pid in enumerate(pool.pids):
        try:
            yield {"process": f"worker {number}"}, psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
