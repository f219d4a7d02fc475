"""Every HTTP error as RFC 9457 ``application/problem+json`` with a stable code, and the status of each error class."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from lesion.core import errors
from lesion.core.errors import LesionError
from lesion.database.failures import is_full
from lesion.imaging.refusals import EmptyImageError, UnreadableFileError
from serve.request_errors import BodyTimeoutError, RequestError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_CODES = {400: "body_malformed", 404: "not_found", 405: "method_not_allowed"}


class AuthError(LesionError):
    """A request that its sender may not make, or not now; ``headers`` are those of the response."""

    default_code = "access_refused"
    headers: Mapping[str, str] | None = None


class UnauthorizedError(AuthError):
    """A request without a valid API key."""

    headers = MappingProxyType({"WWW-Authenticate": 'Bearer realm="lesion"'})


class ForbiddenError(AuthError):
    """A request that this sender may not make."""


class TooManyRequestsError(AuthError):
    """One request more than the sender's limit allows."""


# The first class in an error's MRO that is listed here decides. Concrete errors name their kind before their subject.
_STATUSES: dict[type, int] = {
    # Kinds
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.TooLargeError: 413,
    errors.UnsupportedTypeError: 415,
    errors.InvalidValueError: 422,
    errors.UnavailableError: 503,
    errors.NoSpaceError: 507,
    # Subjects
    RequestError: 400,
    errors.ConfigError: 400,
    errors.DataError: 422,
    errors.ImageError: 422,
    errors.BundleError: 503,
    # Single cases
    EmptyImageError: 400,
    UnreadableFileError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    BodyTimeoutError: 408,
    TooManyRequestsError: 429,
}


def status_of(error: LesionError) -> int:
    """Return the HTTP status that an error is answered with; 500 for a class without an entry."""
    return next((_STATUSES[base] for base in type(error).__mro__ if base in _STATUSES), 500)


def problem(
    scope: Scope, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **extra: object
) -> JSONResponse:
    """Build the response to a refused request; ``detail`` is a sentence for its sender, ``extra`` further members."""
    request_id = scope.get("request_id", "")
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    content |= {"code": code, "request_id": request_id} | extra
    more = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        more["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse(content, status, more | dict(headers or {}), MEDIA_TYPE)


def problem_of(
    scope: Scope, error: LesionError, headers: Mapping[str, str] | None = None, **extra: object
) -> JSONResponse:
    """Build the response to an error that was raised on purpose; the other arguments are those of :func:`problem`."""
    if isinstance(error, AuthError):
        headers = error.headers
    return problem(scope, status_of(error), error.code, error.message, headers, **extra)


def no_space(scope: Scope, error: Exception) -> JSONResponse:
    """Build the response to a request that failed because a disk of this server or its database is full."""
    logger.error("request %s: a disk is full: %s", scope.get("request_id"), str(error).splitlines()[0])
    detail = "A disk of the server is full. When its operator has freed space, send the same again: nothing is stored "
    return problem(scope, 507, errors.NoSpaceError.default_code, detail + "twice.")


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of an app with a problem document."""

    @app.exception_handler(LesionError)
    async def on_lesion_error(request: Request, error: LesionError) -> JSONResponse:
        return problem_of(request.scope, error)

    @app.exception_handler(SQLAlchemyError)
    async def on_database_error(request: Request, error: SQLAlchemyError) -> JSONResponse:
        if is_full(error):
            return no_space(request.scope, error)
        logger.error("request %s: the database failed", request.scope.get("request_id"), exc_info=error)
        detail = "The database does not answer. Send the same request again soon; nothing is stored twice."
        return problem(request.scope, 503, "database_unavailable", detail)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, f"http_{error.status_code}")
        detail = {
            404: "There is nothing at this path. See /openapi.json for the paths of this server.",
            405: f"This path does not accept {request.method}. See /openapi.json for the methods that it accepts.",
        }.get(error.status_code, f"The request was refused: {error.detail}")
        return problem(request.scope, error.status_code, code, detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [{"parameter": ".".join(map(str, fault["loc"])), "message": fault["msg"]} for fault in error.errors()]
        sentence = "; ".join(f"{fault['parameter']}: {fault['message']}" for fault in faults)
        return problem(request.scope, 422, "parameter_invalid", f"A parameter is not valid. {sentence}.", errors=faults)
