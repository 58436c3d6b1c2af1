"""The routes of the page and of programs: models, jobs, their progress, their files, health."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from lamina.serve import schemas
from lamina.serve.errors import Refusal
from lamina.serve.interface import answering
from lamina.serve.jobs.store import ENDED
from lamina.serve.metrics import CONTENT_TYPE, exposition
from lamina.serve.page import INDEX
from lamina.serve.receiving import take_upload
from lamina.serve.service import Service, Shared

router = APIRouter()

_POLL_S = 0.25
_BEAT_S = 15.0
_HISTORY = 200
_PAGE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""For pages that hold their own scripts: they run, but as nobody's, and reach nothing."""
_UPLOAD_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            }
        },
    }
}
JobId = Annotated[str, InPath(pattern="^[0-9a-f]{32}$")]


@router.get("/", include_in_schema=False)
async def page(service: Shared) -> Response:
    """The page; a token in its address becomes a cookie."""
    if not INDEX.is_file():
        raise Refusal(404, "This installation has no page.", "Use the interface under /api.")
    response = FileResponse(INDEX)
    if service.settings.token is not None:
        response.set_cookie(
            service.settings.cookie, service.settings.token, httponly=True, samesite="strict"
        )
    return response


@router.get("/api/models")
async def models(service: Shared) -> list[schemas.Model]:
    """Models that can be asked for."""
    return list(service.models.values())


@router.post("/api/jobs", status_code=202, openapi_extra=_UPLOAD_SCHEMA)
async def create_job(
    request: Request,
    response: Response,
    service: Shared,
    model: Annotated[str, Query()],
    pixel_size: Annotated[float | None, Query(gt=0, le=1000)] = None,
) -> schemas.Job:
    """Send a scan: a file, one file per channel, the files of a DICOM series, or one zip.

    Files of channels are taken in the order of their names, unless each is sent as a field that is
    named after its channel. ``pixel_size``: side of a pixel in mm, of a picture.
    """
    if model not in service.models:
        raise Refusal(404, "There is no such model.", "GET /api/models lists them.")
    job_id = await take_upload(request, service, model, pixel_size)
    response.headers["Location"] = f"/api/jobs/{job_id}"
    return _job(service, job_id)


@router.get("/api/jobs")
def jobs(
    service: Shared,
    limit: Annotated[int, Query(ge=1, le=1000)] = _HISTORY,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> list[schemas.Job]:
    """Jobs, newest first."""
    return [schemas.Job(**job) for job in service.store.jobs(limit, offset)]


@router.get("/api/jobs/{job_id}")
def job(service: Shared, job_id: JobId) -> schemas.Job:
    """One job."""
    return _job(service, job_id)


@router.get(
    "/api/jobs/{job_id}/events",
    responses=answering("text/event-stream"),
    response_class=StreamingResponse,
)
async def events(service: Shared, job_id: JobId) -> StreamingResponse:
    """The job whenever it changes, until it has ended."""
    _job(service, job_id)
    return StreamingResponse(_stream(service, job_id), media_type="text/event-stream")


@router.post("/api/jobs/{job_id}/cancel")
def cancel(service: Shared, job_id: JobId) -> schemas.Job:
    """End a job; what has ended stays as it is."""
    _job(service, job_id)
    service.store.cancel(job_id)
    return _job(service, job_id)


@router.delete("/api/jobs/{job_id}", status_code=204, response_class=Response)
def remove(service: Shared, job_id: JobId) -> None:
    """Cancel a job and remove its scan and results."""
    _job(service, job_id)
    service.store.remove(job_id)


@router.get(
    "/api/jobs/{job_id}/files/{name}",
    responses=answering("application/octet-stream"),
    response_class=FileResponse,
)
def result(service: Shared, job_id: JobId, name: str) -> FileResponse:
    """One of the files that the job lists."""
    path = service.store.result_file(job_id, name)
    if path is None:
        raise Refusal(404, "There is no such file.", "The job lists those that there are.")
    if path.suffix == ".html":
        return FileResponse(path, headers={"Content-Security-Policy": _PAGE_POLICY})
    return FileResponse(path, filename=name, media_type="application/octet-stream")


@router.get("/metrics", responses=answering("text/plain"), response_class=PlainTextResponse)
def metrics(service: Shared) -> PlainTextResponse:
    """Figures for Prometheus."""
    text = exposition(service.store, service.pool, service.requests)
    return PlainTextResponse(text, media_type=CONTENT_TYPE)


@router.get("/healthz")
async def health() -> dict[str, str]:
    """Whether the server answers."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(service: Shared) -> dict[str, str]:
    """Whether jobs would be begun."""
    if service.stopping.is_set() or service.pool.num_ready == 0:
        raise Refusal(503, "No worker is ready yet.", headers={"Retry-After": "1"})
    service.store.counts()
    return {"status": "ready"}


def _job(service: Service, job_id: str) -> schemas.Job:
    found = service.store.job(job_id)
    if found is None:
        raise Refusal(404, "There is no such job.", "GET /api/jobs lists them.")
    return schemas.Job(**found)


async def _stream(service: Service, job_id: str) -> AsyncIterator[str]:
    last, silent_s = "", 0.0
    while not service.stopping.is_set():
        found = await run_in_threadpool(service.store.job, job_id)
        if found is None:
            return
        text = json.dumps(found)
        if text != last:
            yield f"data: {text}\n\n"
            last, silent_s = text, 0.0
        elif silent_s >= _BEAT_S:
            yield ": still there\n\n"
            silent_s = 0.0
        if found["state"] in ENDED:
            return
        await asyncio.sleep(_POLL_S)
        silent_s += _POLL_S
