"""The queue: jobs in an SQLite file, which outlives the server and its workers.

Every change is one transaction. Only the worker that holds a job can move or end it, so one that
was taken for dead cannot spoil the work of its successor.
"""

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lamina.errors import LaminaError
from lamina.files import read_json, remove_parts, write_json
from lamina.serve.jobs.rows import place_among_waiting, shown
from lamina.serve.jobs.work import Work

ENDED = ("done", "failed", "cancelled")
STATES = ("queued", "running", *ENDED)

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    progress REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    tries INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    cancelled REAL,
    removed INTEGER NOT NULL DEFAULT 0,
    hidden INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    result TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, seq);
"""
_BUSY_S = 30.0
_FILE = "jobs.sqlite"
_ID = re.compile("[0-9a-f]{32}")
_UPLOAD, _RESULT, _UPLOADED = "upload", "result", "upload.json"
_DIED = {
    "message": "The process that segmented it ended unexpectedly, every time it was tried.",
    "remedy": "The scan may need more memory than there is; ask whoever runs the server.",
}


class Store:
    """The queue in a folder; any number of processes may use it at a time.

    Args:
        folder: Holds ``jobs.sqlite`` and, in ``jobs``, a folder of files per job.
        max_tries: How often a job is begun whose worker dies.
    """

    def __init__(self, folder: Path, max_tries: int = 3) -> None:
        self.folder = folder
        self.max_tries = max_tries

    def prepare(self) -> None:
        """Make what is missing, put jobs back that were being done, clear what has no job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "jobs").mkdir(mode=0o700, exist_ok=True)
        (self.folder / _FILE).touch(mode=0o600)
        with self._reading() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_TABLE)
        with self._changing() as db:
            db.execute("DELETE FROM jobs WHERE hidden")  # who waited for them has gone
        self.release(None)
        self.sweep()
        with self._reading() as db:
            known = {row["id"] for row in db.execute("SELECT id FROM jobs")}
        for folder in (self.folder / "jobs").iterdir():
            if _ID.fullmatch(folder.name) and folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def upload_folder(self, job_id: str) -> Path:
        """Return where the files of a new job go."""
        return self.folder / "jobs" / job_id / _UPLOAD

    def forget_upload(self, job_id: str) -> None:
        """Remove the files of a job that did not come to be."""
        shutil.rmtree(self.folder / "jobs" / job_id, ignore_errors=True)

    def submit(
        self,
        job_id: str,
        model: str,
        name: str,
        files: Mapping[Path, str],
        *,
        ordered: bool = False,
        pixel_size: float | None = None,
        hidden: bool = False,
    ) -> None:
        """File a job whose upload is complete; from here on it is not lost."""
        names = {path.name: given for path, given in files.items()}
        told = {"ordered": ordered, "pixel_size": pixel_size, "files": names}
        write_json(self.folder / "jobs" / job_id / _UPLOADED, told)
        with self._changing() as db:
            db.execute(
                "INSERT INTO jobs (id, model, name, state, created, hidden)"
                " VALUES (?, ?, ?, 'queued', ?, ?)",
                (job_id, model, name, time.time(), hidden),
            )

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return a job as the interface shows it; ``None`` where there is none."""
        with self._reading() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE id = ? AND NOT removed", (job_id,)
            ).fetchone()
            return None if row is None else shown(row, place_among_waiting(db, row))

    def jobs(self, limit: int, offset: int = 0) -> list[dict[str, Any]]:
        """Return jobs, newest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE NOT removed AND NOT hidden"
                " ORDER BY seq DESC LIMIT ? OFFSET ?",
                (limit, offset),
            ).fetchall()
            return [shown(row, place_among_waiting(db, row)) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each state."""
        with self._reading() as db:
            found = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def result_file(self, job_id: str, name: str) -> Path | None:
        """Return a result of a job; ``None`` unless it is one of those that it lists."""
        job = self.job(job_id)
        listed = [] if job is None else [file["name"] for file in job["files"]]
        path = self.folder / "jobs" / job_id / _RESULT / name
        return path if name in listed and path.is_file() else None

    def cancel(self, job_id: str) -> None:
        """End a job that waits; have one that is being done given up."""
        now = time.time()
        with self._changing() as db:
            db.execute(
                "UPDATE jobs SET state = 'cancelled', stage = '', finished = ?"
                " WHERE id = ? AND state = 'queued'",
                (now, job_id),
            )
            db.execute(
                "UPDATE jobs SET cancelled = coalesce(cancelled, ?), stage = 'cancelling'"
                " WHERE id = ? AND state = 'running'",
                (now, job_id),
            )

    def remove(self, job_id: str) -> None:
        """Cancel a job and forget it, with its files."""
        self.cancel(job_id)
        with self._changing() as db:
            db.execute("UPDATE jobs SET removed = 1 WHERE id = ?", (job_id,))
        self.sweep()

    def sweep(self, keep_s: float | None = None) -> None:
        """Clear what was removed, and what ended longer ago than ``keep_s``."""
        before = 0.0 if keep_s is None else time.time() - keep_s
        gone = "state != 'running' AND (removed OR finished < ?)"
        with self._changing() as db:
            rows = db.execute(f"SELECT id FROM jobs WHERE {gone}", (before,)).fetchall()
            db.executemany("DELETE FROM jobs WHERE id = ?", [(row["id"],) for row in rows])
        for row in rows:
            self.forget_upload(row["id"])

    def claim(self, worker: str) -> Work | None:
        """Give the job that has waited longest to a worker; ``None`` where none waits."""
        with self._reading() as db:  # an idle worker keeps nobody from writing
            if db.execute("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1").fetchone() is None:
                return None
        with self._changing() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE state = 'queued' ORDER BY seq LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = 'running', stage = 'reading', progress = 0, started = ?,"
                " worker = ?, tries = tries + 1 WHERE id = ?",
                (time.time(), worker, row["id"]),
            )
        folder = self.folder / "jobs" / row["id"]
        remove_parts(folder)
        told = read_json(folder / _UPLOADED)
        return Work(
            job_id=row["id"],
            model=row["model"],
            name=row["name"],
            files={folder / _UPLOAD / stored: given for stored, given in told["files"].items()},
            ordered=told["ordered"],
            pixel_size=told.get("pixel_size"),
            out=folder / _RESULT,
        )

    def tell(self, job_id: str, worker: str, stage: str, progress: float) -> bool:
        """Note how far a job is; return whether the worker is still to go on with it."""
        with self._changing() as db:
            done = db.execute(
                "UPDATE jobs SET stage = ?, progress = ? WHERE id = ? AND worker = ?"
                " AND state = 'running' AND cancelled IS NULL",
                (stage, min(1.0, max(0.0, progress)), job_id, worker),
            )
            return done.rowcount == 1

    def finish(self, job_id: str, worker: str, result: Mapping[str, Any]) -> None:
        """Note that a worker is done with a job."""
        self._end(job_id, worker, "done", result=json.dumps(result, allow_nan=False))

    def fail(self, job_id: str, worker: str, error: LaminaError) -> None:
        """Note why a job cannot be done."""
        told = {"message": error.message, "remedy": error.remedy}
        self._end(job_id, worker, "failed", error=json.dumps(told))

    def give_up(self, job_id: str, worker: str) -> None:
        """Note that a worker has left a job that was cancelled."""
        self._end(job_id, worker, "cancelled")

    def release(self, worker: str | None, *, tried: bool = True) -> None:
        """Put back what a worker that has ended was doing, for as many tries as are granted.

        Args:
            worker: Its name; ``None`` for all.
            tried: Whether that counts as a try; not where the worker was ended on purpose.
        """
        own, now = "state = 'running' AND (? IS NULL OR worker = ?)", time.time()
        with self._changing() as db:
            db.execute(
                f"UPDATE jobs SET state = 'cancelled', stage = '', finished = ?, worker = NULL"
                f" WHERE {own} AND cancelled IS NOT NULL",
                (now, worker, worker),
            )
            if tried:
                db.execute(
                    f"UPDATE jobs SET state = 'failed', finished = ?, error = ?, worker = NULL"
                    f" WHERE {own} AND tries >= ?",
                    (now, json.dumps(_DIED), worker, worker, self.max_tries),
                )
            db.execute(
                f"UPDATE jobs SET state = 'queued', stage = '', progress = 0, started = NULL,"
                f" worker = NULL, tries = tries - ? WHERE {own}",
                (not tried, worker, worker),
            )

    def overdue(self, timeout_s: float, grace_s: float) -> Sequence[tuple[str, str, bool]]:
        """Return jobs that take too long, or do not end although they were cancelled.

        Returns:
            Id, worker, and whether it was cancelled.
        """
        now = time.time()
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, worker, cancelled IS NOT NULL AS cancelled FROM jobs"
                " WHERE state = 'running' AND (started < ? OR cancelled < ?)",
                (now - timeout_s, now - grace_s),
            ).fetchall()
        return [(row["id"], row["worker"], bool(row["cancelled"])) for row in rows]

    def _end(
        self, job_id: str, worker: str, state: str, *, result: str = "", error: str = ""
    ) -> None:
        with self._changing() as db:
            db.execute(
                "UPDATE jobs SET state = ?, stage = '', finished = ?, result = ?, error = ?,"
                " progress = CASE WHEN ? = 'done' THEN 1 ELSE progress END, worker = NULL"
                " WHERE id = ? AND worker = ? AND state = 'running'",
                (state, time.time(), result or None, error or None, state, job_id, worker),
            )

    def _reading(self) -> closing[sqlite3.Connection]:
        db = sqlite3.connect(self.folder / _FILE, timeout=_BUSY_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA secure_delete = ON")  # names of scans go with their jobs
        return closing(db)

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db
