"""A job as the interface shows it."""

import json
import sqlite3
from datetime import datetime, timezone
from typing import Any


def shown(row: sqlite3.Row, position: int | None) -> dict[str, Any]:
    """Return a row of the queue as plain data.

    Args:
        row: All its columns.
        position: Place among those that wait.
    """
    result = json.loads(row["result"]) if row["result"] else {}
    return {
        "id": row["id"],
        "state": row["state"],
        "progress": row["progress"],
        "stage": row["stage"],
        "model": row["model"],
        "name": row["name"],
        "created": _iso(row["created"]),
        "started": _iso(row["started"]),
        "finished": _iso(row["finished"]),
        "error": json.loads(row["error"]) if row["error"] else None,
        "position": position,
        "structures": result.get("structures", []),
        "flags": result.get("flags", []),
        "affine": result.get("affine"),
        "files": result.get("files", []),
    }


def place_among_waiting(db: sqlite3.Connection, row: sqlite3.Row) -> int | None:
    """Return how many jobs come before a row's or are it; ``None`` where it does not wait."""
    if row["state"] != "queued":
        return None
    ahead = db.execute(
        "SELECT count(*) FROM jobs WHERE state = 'queued' AND seq <= ?", (row["seq"],)
    ).fetchone()
    return int(ahead[0])


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
