"""Errors that API processes and inference workers raise; ``serve/http/problems.py`` lists their statuses."""

from lesion.core.errors import InvalidValueError, LesionError, TooLargeError, UnavailableError, UnsupportedTypeError


class RequestError(LesionError):
    """A request that is refused for its form, before anybody looks at the image."""

    default_code = "request_invalid"


class BodyTimeoutError(RequestError):
    """A request whose body took too long to arrive."""

    default_code = "body_timeout"


class BodyTooLargeError(TooLargeError, RequestError):
    """A request whose body has more bytes than are allowed."""

    default_code = "body_too_large"


class MediaTypeError(UnsupportedTypeError, RequestError):
    """A request whose body is of another type than the route reads."""

    default_code = "media_type_not_supported"


class ParameterError(InvalidValueError, RequestError):
    """A request with a parameter or field that cannot be used."""

    default_code = "parameter_invalid"


class BusyError(UnavailableError):
    """A request that the server cannot answer now, though it might later."""

    default_code = "server_busy"
