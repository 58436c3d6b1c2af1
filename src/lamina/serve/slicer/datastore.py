"""Images that Slicer sent, and the labels that people drew on them.

Ids are the users' words. They stand in a JSON file; folders are named by their hashes, so that no
id leads anywhere else.
"""

import filecmp
import hashlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.errors import DiskFullError, FileError, GeometryError, LabelError
from lamina.files import read_json, write_json
from lamina.io import claim_of, read_labels
from lamina.serve.errors import Refusal
from lamina.serve.intake.scans import MOST_VALUES
from lamina.serve.intake.uploads import is_clutter, safe_suffix

log = logging.getLogger(__name__)

FINAL = "final"
"""Tag of a label that a person has accepted."""
SESSION_S = 3600
"""How long the image of a session is kept after it was last used."""

_ENTRY = "entry.json"
_HASHED = 32
_LABEL_SUFFIXES = (".nii", ".nii.gz", ".nrrd")


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

    Requests come at the same time; who changes an entry keeps the others waiting, else of two
    labels of an image one would be lost.

    Args:
        folder: Made when something is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()

    def entries(self) -> list[Entry]:
        """Return all images that stay, oldest first."""
        with self._lock:
            found = [_read(folder) for folder in self._folders("images")]
        return sorted((e for e in found if e is not None), key=lambda e: (e.ts, e.image_id))

    def find(self, image_id: str) -> Entry:
        """Return an image.

        Raises:
            Refusal: There is none of that id.
        """
        return self._known("images", image_id)

    def session(self, session_id: str) -> Entry:
        """Return the image of a session.

        Raises:
            Refusal: There is none of that id.
        """
        with self._lock:
            entry = self._known("sessions", session_id)
            os.utime(entry.folder)
        return entry

    def incoming(self) -> Path:
        """Return a folder for an upload, not there yet."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder / "incoming" / uuid.uuid4().hex

    def add(self, image_id: str, upload: Path, name: str) -> None:
        """Keep an image; one of the same id goes, unless people have drawn labels on it.

        Raises:
            Refusal: It is of no known format, or differs in a byte from the one that has labels.
        """
        folder = self._folder("images", image_id)
        with self._lock:
            if not any(folder.glob("label-*")):
                self._put("images", image_id, upload, name)
                return
            entry = _read(folder)
            if entry is None or not filecmp.cmp(entry.image, upload, shallow=False):
                raise Refusal(
                    409,
                    "There are labels of this name, and their image is not known to be this file, "
                    "byte for byte.",
                    "Send this one under another name, or remove that one, with its labels, first.",
                )

    def start_session(self, upload: Path, name: str) -> Entry:
        """Keep an image until its session ends."""
        session_id = uuid.uuid4().hex
        self._put("sessions", session_id, upload, name)
        return self.session(session_id)

    def end_session(self, session_id: str) -> None:
        """Forget a session."""
        with self._lock:
            shutil.rmtree(self.session(session_id).folder, ignore_errors=True)

    def remove(self, image_id: str) -> None:
        """Forget an image and its labels, and what is left of one whose entry is damaged.

        Raises:
            Refusal: There is none of that id.
        """
        folder = self._folder("images", image_id)
        with self._lock:
            if not folder.is_dir():
                raise _unknown()
            shutil.rmtree(folder, ignore_errors=True)

    def label(self, image_id: str, tag: str, upload: Path, info: dict[str, Any]) -> None:
        """Keep a label of an image; one with the same tag goes.

        Raises:
            Refusal: There is no such image, or the label is no label map that can be read.
        """
        hashed = hashlib.sha256(tag.encode()).hexdigest()[:_HASHED]
        name = f"label-{hashed}{safe_suffix(upload.name)}"
        told = {"file": name, "ts": int(time.time()), "info": info}
        self.find(image_id)
        _check_label(upload)
        with self._lock:
            entry = self.find(image_id)
            before = entry.labels.get(tag, told)["file"]
            upload.replace(entry.folder / name)
            _write(entry.folder, entry, entry.labels | {tag: told})
            if before != name:
                (entry.folder / before).unlink(missing_ok=True)

    def label_file(self, image_id: str, tag: str) -> Path:
        """Return a label's file.

        Raises:
            Refusal: There is none.
        """
        entry = self.find(image_id)
        if tag not in entry.labels:
            raise Refusal(404, "There is no such label.")
        return entry.folder / str(entry.labels[tag]["file"])

    def sweep(self) -> None:
        """Forget sessions that nobody uses any more, and uploads that were cut off."""
        before = time.time() - SESSION_S
        with self._lock:
            for folder in (*self._folders("sessions"), *self._folders("incoming")):
                if _last_change(folder) < before:
                    shutil.rmtree(folder, ignore_errors=True)

    def _folders(self, kind: str) -> Iterator[Path]:
        parent = self.folder / kind
        yield from sorted(parent.iterdir()) if parent.is_dir() else ()

    def _folder(self, kind: str, name: str) -> Path:
        hashed = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_HASHED]
        return self.folder / kind / hashed

    def _known(self, kind: str, name: str) -> Entry:
        with self._lock:
            entry = _read(self._folder(kind, name))
        if entry is None:
            raise _unknown()
        return entry

    def _put(self, kind: str, image_id: str, upload: Path, name: str) -> None:
        if not safe_suffix(upload.name) or is_clutter(name):
            raise Refusal(422, "The image is of no known format.", "Send NIfTI or NRRD.")
        folder = self._folder(kind, image_id)
        image = folder / f"image{safe_suffix(upload.name)}"
        entry = Entry(
            image_id=image_id, folder=folder, image=image, name=name, labels={}, ts=int(time.time())
        )
        with self._lock:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            upload.replace(image)
            _write(folder, entry, {})


def _unknown() -> Refusal:
    return Refusal(404, "There is no such image or session.", "Send it first.")


def _check_label(upload: Path) -> None:
    """Refuse what would take the place of a label and be none."""
    if safe_suffix(upload.name) not in _LABEL_SUFFIXES:
        raise Refusal(422, "The label is neither NIfTI nor NRRD.", "Send .nii, .nii.gz or .nrrd.")
    try:
        if claim_of(upload).values > MOST_VALUES:
            raise Refusal(413, f"The label holds more than {MOST_VALUES:,} numbers.")
        read_labels(upload)
    except DiskFullError:
        raise
    except (FileError, GeometryError, LabelError) as error:
        raise Refusal(
            422,
            "The label is damaged, or no map of whole numbers.",
            "Save it again, and send that.",
        ) from error


def _last_change(folder: Path) -> float:
    """Return when a folder, or a file in it, was last written; now where it has just gone."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return time.time()


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
    try:
        told = read_json(folder / _ENTRY)
        return Entry(
            image_id=told["id"],
            folder=folder,
            image=folder / told["image"],
            name=told["name"],
            labels=told["labels"],
            ts=told["ts"],
        )
    except (FileError, KeyError, TypeError) as error:
        log.warning("%s: damaged, and passed over: %s.", folder / _ENTRY, type(error).__name__)
        return None
