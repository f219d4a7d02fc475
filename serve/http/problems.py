"""Every HTTP error as RFC 9457 ``application/problem+json`` with a stable code."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from lesion.core.errors import LesionError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_CODES = {400: "body_malformed", 404: "not_found", 405: "method_not_allowed"}


class RequestError(LesionError):
    """A request that the server refuses before it looks at the image."""

    default_code = "request_invalid"
    default_status = 400


class BusyError(LesionError):
    """A request that the server cannot answer now, though it might later."""

    default_code = "server_busy"
    default_status = 503


class AccessError(LesionError):
    """A request that its sender may not make, or not now.

    Args:
        message: A full sentence for the sender.
        code: Stable name of the refusal.
        status: HTTP status.
        headers: What the answer says besides, such as ``Retry-After``.
    """

    default_code = "access_refused"
    default_status = 403

    def __init__(self, message: str, *, code: str, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, code=code, status=status)
        self.headers = headers


class Problem(JSONResponse):
    """A problem document."""

    media_type: ClassVar[str] = MEDIA_TYPE  # type: ignore[misc]


def problem(
    scope: Scope, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **extra: object
) -> Problem:
    """Build the answer to a refused request.

    Args:
        scope: The request's ASGI scope.
        status: HTTP status.
        code: Stable name of the refusal.
        detail: A sentence for the person who sent the request.
        headers: Further headers.
        **extra: Further members.
    """
    request_id = scope.get("request_id", "")
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    content |= {"code": code, "request_id": request_id} | extra
    more = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        more["Connection"] = "close"  # what is left of the body is not read
    return Problem(content, status, more | dict(headers or {}))


def problem_of(scope: Scope, error: LesionError) -> Problem:
    """Build the answer to an error that was raised on purpose."""
    headers = error.headers if isinstance(error, AccessError) else None
    return problem(scope, error.status, error.code, error.message, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of an app with a problem document."""

    @app.exception_handler(LesionError)
    async def on_lesion_error(request: Request, error: LesionError) -> Problem:
        return problem_of(request.scope, error)

    @app.exception_handler(SQLAlchemyError)
    async def on_database_error(request: Request, error: SQLAlchemyError) -> Problem:
        logger.error("request %s: the database failed", request.scope.get("request_id"), exc_info=error)
        detail = "The database does not answer. Send the same again soon; nothing is taken twice."
        return problem(request.scope, 503, "database_unavailable", detail)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Problem:
        code = _CODES.get(error.status_code, f"http_{error.status_code}")
        detail = {
            404: "There is nothing at this path. See /openapi.json for what there is.",
            405: f"This path does not take {request.method}. See /openapi.json for what it takes.",
        }.get(error.status_code, f"The request was refused: {error.detail}")
        return problem(request.scope, error.status_code, code, detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Problem:
        faults = [{"parameter": ".".join(map(str, each["loc"])), "message": each["msg"]} for each in error.errors()]
        sentence = "; ".join(f"{fault['parameter']}: {fault['message']}" for fault in faults)
        return problem(request.scope, 422, "parameter_invalid", f"A parameter is not valid. {sentence}.", errors=faults)
