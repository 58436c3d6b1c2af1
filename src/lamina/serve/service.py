"""What the routes share."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from lamina.serve.jobs import Pool, Store
from lamina.serve.metrics import Requests
from lamina.serve.schemas import Model
from lamina.serve.settings import Settings
from lamina.serve.slicer import Datastore


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the routes share."""

    settings: Settings
    models: Mapping[str, Model]
    store: Store
    pool: Pool
    datastore: Datastore
    requests: Requests = field(default_factory=Requests)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    uploading: set[str] = field(default_factory=set)
    """Ids of jobs whose upload comes in."""


def _service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(_service_of)]
