"""Images that Slicer sent, and the labels that people drew on them.

Ids are the users' words. They stand in a JSON file; folders are named by their hashes, so that no
id leads anywhere else.
"""

import hashlib
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.files import read_json, write_json
from lamina.serve.errors import Refusal
from lamina.serve.intake.uploads import is_clutter, safe_suffix

FINAL = "final"
"""Tag of a label that a person has accepted."""

_ENTRY = "entry.json"
_HASHED = 32


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image with its labels."""

    image_id: str
    folder: Path
    image: Path
    name: str
    """What the user called the file."""
    labels: dict[str, dict[str, Any]]
    """Tag -> ``file``, ``ts`` and what the client told, ``info``."""
    ts: int

    @property
    def suffix(self) -> str:
        """Of the image."""
        return safe_suffix(self.image.name)

    def as_object(self) -> dict[str, Any]:
        """Return it as MONAI Label lists it."""
        image = {"ext": self.suffix, "info": {"ts": self.ts, "name": self.name}}
        labels = {
            tag: {"ext": safe_suffix(label["file"]), "info": label["info"] | {"ts": label["ts"]}}
            for tag, label in self.labels.items()
        }
        return {"image": image, "labels": labels}


class Datastore:
    """Folders of images: those of sessions, which end, and those that stay.

    Args:
        folder: Made when something is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> list[Entry]:
        """Return all images that stay, oldest first."""
        found = (_read(folder) for folder in self._folders("images"))
        return sorted((e for e in found if e is not None), key=lambda e: (e.ts, e.image_id))

    def find(self, image_id: str) -> Entry:
        """Return an image.

        Raises:
            Refusal: There is none of that id.
        """
        return _known(_read(self._folder("images", image_id)), image_id)

    def session(self, session_id: str) -> Entry:
        """Return the image of a session.

        Raises:
            Refusal: There is none of that id.
        """
        return _known(_read(self._folder("sessions", session_id)), session_id)

    def incoming(self) -> Path:
        """Return a folder for an upload, not there yet."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder / "incoming" / uuid.uuid4().hex

    def add(self, image_id: str, upload: Path, name: str, info: dict[str, Any]) -> None:
        """Keep an image; one of the same id goes, with its labels."""
        self._put(self._folder("images", image_id), image_id, upload, name, info)

    def start_session(self, upload: Path, name: str) -> Entry:
        """Keep an image until its session ends."""
        session_id = uuid.uuid4().hex
        self._put(self._folder("sessions", session_id), session_id, upload, name, {})
        return self.session(session_id)

    def end_session(self, session_id: str) -> None:
        """Forget a session."""
        shutil.rmtree(self.session(session_id).folder, ignore_errors=True)

    def remove(self, image_id: str) -> None:
        """Forget an image and its labels."""
        shutil.rmtree(self.find(image_id).folder, ignore_errors=True)

    def label(self, image_id: str, tag: str, upload: Path, info: dict[str, Any]) -> None:
        """Keep a label of an image; one with the same tag goes."""
        entry = self.find(image_id)
        hashed = hashlib.sha256(tag.encode()).hexdigest()[:_HASHED]
        target = entry.folder / f"label-{hashed}{safe_suffix(upload.name)}"
        upload.replace(target)
        told = {"file": target.name, "ts": int(time.time()), "info": info}
        _write(entry.folder, entry, entry.labels | {tag: told})

    def label_file(self, image_id: str, tag: str) -> Path:
        """Return a label's file.

        Raises:
            Refusal: There is none.
        """
        entry = self.find(image_id)
        if tag not in entry.labels:
            raise Refusal(404, "There is no such label.")
        return entry.folder / str(entry.labels[tag]["file"])

    def sweep(self, keep_s: float) -> None:
        """Forget sessions, and uploads that were cut off, after a time."""
        for kind in ("sessions", "incoming"):
            for folder in self._folders(kind):
                if folder.stat().st_mtime < time.time() - keep_s:
                    shutil.rmtree(folder, ignore_errors=True)

    def _folders(self, kind: str) -> Iterator[Path]:
        parent = self.folder / kind
        yield from sorted(parent.iterdir()) if parent.is_dir() else ()

    def _folder(self, kind: str, name: str) -> Path:
        hashed = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_HASHED]
        return self.folder / kind / hashed

    def _put(
        self, folder: Path, image_id: str, upload: Path, name: str, info: dict[str, Any]
    ) -> None:
        if not safe_suffix(upload.name) or is_clutter(name):
            raise Refusal(422, "The image is of no known format.", "Send NIfTI or NRRD.")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        image = folder / f"image{safe_suffix(upload.name)}"
        upload.replace(image)
        entry = Entry(
            image_id=image_id, folder=folder, image=image, name=name, labels={}, ts=int(time.time())
        )
        _write(folder, entry, {})


def _write(folder: Path, entry: Entry, labels: dict[str, dict[str, Any]]) -> None:
    told = {
        "id": entry.image_id,
        "image": entry.image.name,
        "name": entry.name,
        "labels": labels,
        "ts": entry.ts,
    }
    write_json(folder / _ENTRY, told)


def _read(folder: Path) -> Entry | None:
    if not (folder / _ENTRY).is_file():
        return None
    told = read_json(folder / _ENTRY)
    return Entry(
        image_id=told["id"],
        folder=folder,
        image=folder / told["image"],
        name=told["name"],
        labels=told["labels"],
        ts=told["ts"],
    )


def _known(entry: Entry | None, name: str) -> Entry:
    if entry is None:
        raise Refusal(404, "There is no such image or session.", "Send it first.")
    return entry
