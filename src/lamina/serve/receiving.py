"""Taking in what is sent: whether there is room for it, its files, and the job it becomes."""

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from lamina.serve.errors import Refusal
from lamina.serve.intake import Limits, Upload, receive, unpack
from lamina.serve.intake.uploads import base_name
from lamina.serve.service import Service

_RETRY_S = 5
_FREE_BYTES = 1 << 28
"""Room that must be left on the disk besides an upload."""


async def take_upload(
    request: Request, service: Service, model: str, pixel_size: float | None
) -> str:
    """Receive a scan and file the job; return its id.

    Raises:
        Refusal: The queue is full, or the upload is refused.
    """
    check_room(request, service)
    job_id = uuid.uuid4().hex
    service.uploading.add(job_id)
    try:
        upload = await receive_files(request, service, service.store.upload_folder(job_id))
        name = _called(list(upload.files.values()))
        ordered = _by_channel(upload, service.models[model].channels)
        files = ordered or await run_in_threadpool(_unpacked, upload, service)
        await run_in_threadpool(
            service.store.submit,
            *(job_id, model, name, files),
            ordered=bool(ordered),
            pixel_size=pixel_size,
        )
    except BaseException:
        if service.store.job(job_id) is None:  # else it was filed just before the end came
            service.store.forget_upload(job_id)
        raise
    finally:
        service.uploading.discard(job_id)
    return job_id


async def receive_files(request: Request, service: Service, folder: Path) -> Upload:
    """Write what a request holds into a folder.

    Raises:
        UploadError: It is malformed or too large.
    """
    settings = service.settings
    return await receive(
        request.stream(),
        request.headers.get("content-type", ""),
        request.headers.get("content-length"),
        folder,
        Limits(
            max_bytes=settings.max_upload_bytes,
            max_files=settings.max_files,
            idle_s=settings.upload_idle_s,
        ),
    )


def check_room(request: Request, service: Service) -> None:
    """Refuse more work than can wait here.

    Raises:
        Refusal: The queue or the disk is full, or the server is about to stop.
    """
    later = {"Retry-After": str(_RETRY_S)}
    if service.stopping.is_set():
        raise Refusal(503, "The server is stopping.", "Try again soon.", later)
    waiting = service.store.counts()["queued"] + len(service.uploading)
    if waiting >= service.settings.max_queue:
        raise Refusal(503, f"{waiting} scans are waiting already.", "Try again soon.", later)
    told = request.headers.get("content-length", "")
    coming = min(int(told) if told.isdecimal() else 0, service.settings.max_upload_bytes)
    if shutil.disk_usage(service.settings.data).free < _FREE_BYTES + coming:
        raise Refusal(503, "The server's disk is full.", "Try again later.", later)


def _by_channel(upload: Upload, channels: Sequence[str]) -> dict[Path, str]:
    """Return files in the order of the channels, where their fields are named after these."""
    if len(channels) < 2 or not set(channels) & set(upload.parts):
        return {}
    if set(channels) != set(upload.parts) or len(upload.files) != len(channels):
        known = ", ".join(channels)
        raise Refusal(422, "Not each channel has one file.", f"Send one for each of: {known}.")
    return {upload.parts[name]: upload.files[upload.parts[name]] for name in channels}


def _unpacked(upload: Upload, service: Service) -> dict[Path, str]:
    zips = [path for path in upload.files if path.suffix == ".zip"]
    if not upload.files:
        raise Refusal(422, "No file was sent.", "Send the scan as fields named 'files'.")
    if not zips:
        return upload.files
    if len(upload.files) > 1:
        raise Refusal(422, "An archive was sent with other files.", "Send it alone.")
    settings = service.settings
    (archive,) = zips
    return unpack(
        archive, archive.parent, max_bytes=settings.max_unpacked_bytes, max_files=settings.max_files
    )


def _called(names: list[str]) -> str:
    """Return what the user calls a scan: the folder of several files, or the only file."""
    if not names:
        return "scan"
    folder = names[0].replace("\\", "/").strip("/").partition("/")
    return (folder[0] if len(names) > 1 and folder[1] else base_name(names[0])) or "scan"
