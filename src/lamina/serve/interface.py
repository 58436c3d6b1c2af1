"""The interface as OpenAPI describes it, and the one form that all its errors have."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from lamina.serve.errors import Refusal, shown
from lamina.serve.guard import OPEN

_REFUSALS = (
    "400",
    "401",
    "403",
    "404",
    "405",
    "408",
    "409",
    "413",
    "415",
    "422",
    "500",
    "503",
    "507",
)
_SHOWN = 1000
"""Characters of a message."""


def describe(app: FastAPI, *, with_token: bool) -> None:
    """Give an application its errors and its description.

    Args:
        app: With all its routes.
        with_token: Whether the guard asks for a token.
    """
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.openapi = lambda: _openapi(app, with_token=with_token)  # type: ignore[method-assign]


async def _on_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return JSONResponse(shown(error.message, error.remedy), error.status, error.headers)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return JSONResponse(shown(str(error.detail)), error.status_code, headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
    return JSONResponse(shown("; ".join(faults)[:_SHOWN]), 422)


def _methods(request: Request) -> list[str]:
    """Return what a path can be asked for, by all of its routes; Starlette names the first's."""
    path = getattr(request.scope.get("route"), "path", "")
    return [method.upper() for method in request.app.openapi()["paths"].get(path, ["get"])]


def _openapi(app: FastAPI, *, with_token: bool) -> dict[str, Any]:
    """Return the description of the interface, with what the guard asks for."""
    if app.openapi_schema is None:
        described = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        for path, methods in described["paths"].items():
            for operation in methods.values():
                operation["responses"] |= {
                    code: {"description": HTTPStatus(int(code)).phrase, "content": error}
                    for code in _REFUSALS
                }
                if with_token:
                    operation["security"] = [] if path in OPEN else [{"token": []}]
        if with_token:
            schemes = described["components"].setdefault("securitySchemes", {})
            schemes["token"] = {"type": "http", "scheme": "bearer"}
        app.openapi_schema = described
    return app.openapi_schema


def answering(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Return how a route is described whose answer is no JSON."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}}}}}
