"""The OpenAPI description, with errors under the media type that they have."""

from typing import Any

from fastapi import FastAPI

from serve.http.problems import MEDIA_TYPE

_PROBLEM = "#/components/schemas/ProblemDetails"
_FASTAPI_OWN = ("HTTPValidationError", "ValidationError")  # what FastAPI would answer to a bad parameter; we do not


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


def _move_problems(document: dict[str, Any]) -> None:
    """FastAPI files every model under ``application/json``, and adds a 422 of its own where a route has none."""
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                schema = content.get("application/json", {}).get("schema", {})
                if str(schema.get("$ref", "")).endswith(_FASTAPI_OWN[0]):
                    response["description"], schema["$ref"] = "A parameter is not valid.", _PROBLEM
                if content.get("application/json", {}).get("schema", {}).get("$ref") == _PROBLEM:
                    content[MEDIA_TYPE] = content.pop("application/json")
    for name in _FASTAPI_OWN:
        document.get("components", {}).get("schemas", {}).pop(name, None)
