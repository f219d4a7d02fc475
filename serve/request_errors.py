"""Errors that API processes and inference workers raise; ``serve/http/problems.py`` lists their statuses."""

from lesion.core.errors import LesionError, UnavailableError


class RequestError(LesionError):
    """A request that is refused for its form, before anybody looks at the image."""

    default_code = "request_invalid"


class BodyTimeoutError(RequestError):
    """A request whose body took too long to arrive."""

    default_code = "body_timeout"


class BusyError(UnavailableError):
    """A request that the server cannot answer now, though it might later."""

    default_code = "server_busy"
