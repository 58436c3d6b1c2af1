"""The routes that 3D Slicer's MONAI Label module calls.

A segmentation that Slicer asks for is a job like any other: it waits its turn, is limited and can
be cancelled, which a lost connection does. Slicer logs in with any name and the token as password.
"""

import asyncio
import shutil
import uuid
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from lamina import __version__
from lamina.serve.errors import Refusal
from lamina.serve.guard import is_token
from lamina.serve.intake import Upload
from lamina.serve.intake.uploads import safe_suffix
from lamina.serve.interface import answering
from lamina.serve.jobs.store import ENDED
from lamina.serve.service import Service, Shared
from lamina.serve.slicer.answers import SEGMENTATION, answered, as_form, described
from lamina.serve.slicer.datastore import FINAL, SESSION_S, Entry
from lamina.serve.slicer.forms import form, only_file, params, received

router = APIRouter(prefix="/monailabel", tags=["MONAI Label"])

_POLL_S = 0.1
_LOGIN_BYTES = 1 << 14
_STRATEGY = "first"
_OCTETS = "application/octet-stream"
_IDLE = "Nothing is trained here."


@router.get("/auth/")
async def auth(service: Shared) -> dict[str, Any]:
    """Whether Slicer is to ask for a password."""
    return {"enabled": service.settings.token is not None, "client_id": "lamina", "realm": "lamina"}


@router.post(
    "/auth/token",
    openapi_extra=form(("password",), kind="application/x-www-form-urlencoded"),
)
async def login(request: Request, service: Shared) -> dict[str, str]:
    """Exchange the token, given as a password, for itself."""
    limit_s, token = service.settings.request_s, service.settings.token
    try:
        body = await asyncio.wait_for(_login_form(request), limit_s)
    except asyncio.TimeoutError as error:
        raise Refusal(408, f"The form was not there in {limit_s:g} s.", "Send it again.") from error
    given = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]
    if token is None or not is_token(given, token):
        raise Refusal(401, "The password is wrong.", "It is the token that lamina serve printed.")
    return {"access_token": token, "token_type": "bearer"}


@router.get("/auth/token/valid")
async def valid() -> dict[str, Any]:
    """Whether the token is still good; the guard has looked at it."""
    return {"status": "ok"}


@router.get("/info/")
def info(service: Shared) -> dict[str, Any]:
    """Models, labels and what else there is."""
    models = {name: described(model) for name, model in service.models.items()}
    labels = dict.fromkeys(name for model in models.values() for name in model["labels"])
    return {
        "name": "Lamina",
        "description": "Thin networks for medical image segmentation; for research only.",
        "version": __version__,
        "labels": list(labels),
        "models": models,
        "trainers": {},
        "strategies": {_STRATEGY: {"description": "The oldest image without a final label."}},
        "scoring": {},
        "train_stats": {},
        "datastore": _statistics(service),
    }


@router.put("/session/", openapi_extra=form(("files",)))
async def start_session(request: Request, service: Shared) -> dict[str, Any]:
    """Send the image that is to be segmented, once for several calls."""
    async with received(request, service) as upload:
        path, name = only_file(upload, ("files", "file"))
        entry = await run_in_threadpool(service.datastore.start_session, path, name)
    return {"session_id": entry.image_id, "session_info": _session(entry)}


@router.get("/session/{session_id}")
def session(service: Shared, session_id: str) -> dict[str, Any]:
    """A session that has not ended."""
    return _session(service.datastore.session(session_id))


@router.delete("/session/{session_id}")
def end_session(service: Shared, session_id: str) -> dict[str, str]:
    """End a session and remove its image."""
    service.datastore.end_session(session_id)
    return {"status": "removed"}


@router.get("/datastore/")
def datastore(service: Shared, output: str = "stats") -> dict[str, Any]:
    """Images and labels: ``output=all`` lists them, else they are counted."""
    if output != "all":
        return _statistics(service)
    entries = service.datastore.entries()
    return {
        "name": "Lamina",
        "description": "",
        "objects": {entry.image_id: entry.as_object() for entry in entries},
    }


@router.put("/datastore/", openapi_extra=form(("file",)))
async def add_image(request: Request, service: Shared, image: str = "") -> dict[str, str]:
    """Keep an image."""
    async with received(request, service) as upload:
        path, name = only_file(upload, ("file", "files"))
        image_id = image or uuid.uuid4().hex
        await run_in_threadpool(service.datastore.add, image_id, path, name)
    return {"image": image_id}


@router.delete("/datastore/")
def remove_image(service: Shared, id: str) -> dict[str, str]:
    """Forget an image and its labels."""
    service.datastore.remove(id)
    return {"status": "removed"}


@router.get("/datastore/image", responses=answering(_OCTETS), response_class=FileResponse)
def image_file(service: Shared, image: str) -> FileResponse:
    """An image."""
    entry = service.datastore.find(image)
    return FileResponse(entry.image, filename=entry.image.name, media_type=_OCTETS)


@router.put("/datastore/label", openapi_extra=form(("label",)))
async def add_label(
    request: Request, service: Shared, image: str, tag: str = FINAL
) -> dict[str, str]:
    """Keep a label of an image."""
    async with received(request, service) as upload:
        path, _ = only_file(upload, ("label",))
        told = params(upload)
        await run_in_threadpool(service.datastore.label, image, tag or FINAL, path, told)
    return {"image": image, "label": image, "tag": tag or FINAL}


@router.get("/datastore/label", responses=answering(_OCTETS), response_class=FileResponse)
def label_file(service: Shared, label: str, tag: str = FINAL) -> FileResponse:
    """A label of an image."""
    path = service.datastore.label_file(label, tag)
    return FileResponse(path, filename=path.name, media_type=_OCTETS)


@router.post("/activelearning/{strategy}")
def next_sample(service: Shared, strategy: str) -> dict[str, Any]:
    """The image that is to be labelled next; empty where there is none."""
    if strategy != _STRATEGY:
        raise Refusal(404, "There is no such strategy.")
    left = (e for e in service.datastore.entries() if FINAL not in e.labels)
    entry = next(left, None)
    return {} if entry is None else {"id": entry.image_id, "name": f"image{entry.suffix}"}


@router.get("/train/")
def training() -> None:
    """Whether a network is trained; none ever is."""
    raise Refusal(404, _IDLE)


@router.post(
    "/infer/{model}",
    openapi_extra=form(("params",)),
    responses=answering("multipart/form-data"),
    response_class=Response,
)
async def infer(
    request: Request,
    service: Shared,
    model: str,
    image: Annotated[str, Query()] = "",
    session_id: Annotated[str, Query()] = "",
) -> Response:
    """Segment an image that was sent before, or comes with the call."""
    if model not in service.models:
        raise Refusal(404, "There is no such model.", "See info.")
    async with received(request, service) as upload:
        told = params(upload)
        job_id = await run_in_threadpool(_submitted, service, model, upload, image, session_id)
    try:
        job = await _ended(request, service, job_id)
        labels = service.models[model].labels
        path = service.store.result_file(job_id, SEGMENTATION)
        found = await run_in_threadpool(answered, job, path, labels, told)
    finally:
        await run_in_threadpool(service.store.remove, job_id)
    return as_form(*found)


async def _login_form(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LOGIN_BYTES:
            raise Refusal(413, "The form is too large.")
    return body


def _submitted(service: Service, model: str, upload: Upload, image: str, session_id: str) -> str:
    """File a job for an image that came along, or is kept, and return its id."""
    if "file" in upload.parts:
        path, name = only_file(upload, ("file",))
    else:
        store = service.datastore
        entry = store.session(session_id) if session_id else store.find(image)
        path, name = entry.image, entry.name
    job_id = uuid.uuid4().hex
    folder = service.store.upload_folder(job_id)
    try:
        folder.mkdir(parents=True)
        copied = folder / f"00000{safe_suffix(path.name)}"
        shutil.copyfile(path, copied)
        service.store.submit(job_id, model, name, {copied: name}, hidden=True)
    except BaseException:
        service.store.forget_upload(job_id)
        raise
    return job_id


async def _ended(request: Request, service: Service, job_id: str) -> dict[str, Any]:
    """Wait for a job to end well.

    Raises:
        Refusal: It did not, or nobody waits for it any more.
    """
    while True:
        job = await run_in_threadpool(service.store.job, job_id)
        if job is None or job["state"] == "cancelled":
            raise Refusal(409, "The job was cancelled.")
        if job["state"] == "failed":
            raise Refusal(422, job["error"]["message"], job["error"]["remedy"])
        if job["state"] in ENDED:
            return job
        if service.stopping.is_set():
            raise Refusal(503, "The server is stopping.", "Try again soon.", {"Retry-After": "5"})
        if await request.is_disconnected():
            raise Refusal(409, "The client has gone.")
        await asyncio.sleep(_POLL_S)


def _session(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.image_id,
        "image": entry.image.name,
        "creation_ts": entry.ts,
        "last_access_ts": entry.ts,
        "expiry": SESSION_S,
    }


def _statistics(service: Service) -> dict[str, Any]:
    entries = service.datastore.entries()
    tags: dict[str, int] = {}
    for tag in (tag for entry in entries for tag in entry.labels):
        tags[tag] = tags.get(tag, 0) + 1
    done = sum(FINAL in entry.labels for entry in entries)
    return {"total": len(entries), "completed": done, "label_tags": tags}
