"""The application: routes, what stands before them, and what runs beside them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from lamina import __version__
from lamina.serve import routes
from lamina.serve.guard import Guard
from lamina.serve.interface import describe
from lamina.serve.jobs import Job, Pool, Store
from lamina.serve.page import STATIC
from lamina.serve.schemas import Error, Model
from lamina.serve.service import Service
from lamina.serve.settings import Settings
from lamina.serve.slicer import Datastore
from lamina.serve.slicer import routes as slicer_routes

_STOP_GRACE_S = 10.0
_ABOUT = """\
Scans in, segmentations out. Jobs wait in a queue that outlives the server; every error is
`{"error": {"message", "remedy"}}`. For research only.
"""


def create_app(
    settings: Settings, models: Mapping[str, Model], make_job: Callable[[], Job]
) -> FastAPI:
    """Return the application; its workers run while it does.

    Args:
        settings: Address, secret and limits.
        models: What can be asked for, by name.
        make_job: Makes, in each worker, what does the jobs; importable there.
    """
    store = Store(settings.data, settings.max_tries)
    datastore = Datastore(settings.data / "slicer")

    def sweep() -> None:
        store.sweep(settings.keep_s)
        datastore.sweep()

    pool = Pool(
        store,
        make_job,
        workers=settings.workers,
        timeout_s=settings.job_timeout_s,
        sweep=sweep,
    )
    service = Service(
        settings=settings,
        models=models,
        store=store,
        pool=pool,
        datastore=datastore,
    )
    app = FastAPI(
        title="Lamina",
        version=__version__,
        description=_ABOUT,
        docs_url=None,  # Swagger's page would fetch its scripts from elsewhere
        redoc_url=None,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        lifespan=_lifespan,
        responses={400: {"model": Error}},
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(slicer_routes.router)
    if (STATIC / "index.html").is_file():
        app.mount("/static", StaticFiles(directory=STATIC), name="static")
    describe(app, with_token=settings.token is not None)
    app.add_middleware(Guard, settings=settings, requests=service.requests)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.store.prepare()
    service.pool.start()
    try:
        yield
    finally:
        service.stopping.set()
        await asyncio.to_thread(service.pool.stop, _STOP_GRACE_S)
