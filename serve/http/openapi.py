"""The OpenAPI document, with errors under their media type."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from serve.http.problems import MEDIA_TYPE
from serve.http.schemas import ProblemDetails

_PROBLEM = "#/components/schemas/ProblemDetails"
_FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")  # FastAPI's answers to a bad parameter; ours differ
Refusals = dict[int | str, dict[str, Any]]


def refusals(descriptions: Mapping[int, str], needs_key: bool = True) -> Refusals:
    """Return a route's refusals for OpenAPI: the given ones by status, and those of every route that needs a key."""
    texts = {**(_KEY_REFUSALS if needs_key else {}), **descriptions}
    return {status: {"model": ProblemDetails, "description": text} for status, text in texts.items()}


_KEY_REFUSALS = {
    401: "No key, or one that is unknown or revoked.",
    403: "The key's role does not allow this.",
    429: "Too many requests. Retry-After says when to try again.",
    507: "A disk of the server is full. Send the same again when there is room.",
}
REFUSALS = refusals({})


def describe(app: FastAPI, version: str) -> None:
    """Give an app its title, and an OpenAPI document whose errors are ``application/problem+json``."""
    app.title = "Lesion"
    app.version = version
    app.description = "Image diagnosis with calibrated probabilities and explanations. Not a medical device."
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            _move_problems(generate())
        document: dict[str, Any] = app.openapi_schema or {}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    _render_once(app)


def _render_once(app: FastAPI) -> None:
    """Let the document be rendered once: FastAPI does it for each request, which takes 10 ms, and anybody may ask."""
    paths = [getattr(route, "path", "") for route in app.router.routes]
    path = str(app.openapi_url)

    @cache
    def rendered() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    async def document(_: Request) -> Response:
        return Response(rendered(), media_type="application/json")

    app.router.routes[paths.index(path)] = Route(path, document, include_in_schema=False)


def _move_problems(document: dict[str, Any]) -> None:
    """Correct FastAPI's document: it lists every model under ``application/json``, and adds a 422 of its own."""
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                schema = content.get("application/json", {}).get("schema", {})
                if str(schema.get("$ref", "")).endswith(_FASTAPI_ERRORS[0]):
                    response["description"], schema["$ref"] = "A parameter is not valid.", _PROBLEM
                if content.get("application/json", {}).get("schema", {}).get("$ref") == _PROBLEM:
                    content[MEDIA_TYPE] = content.pop("application/json")
    for name in _FASTAPI_ERRORS:
        document.get("components", {}).get("schemas", {}).pop(name, None)
