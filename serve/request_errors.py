"""Errors that API processes and inference workers raise; ``serve/http/problems.py`` lists their statuses."""

from collections.abc import Mapping

from lesion.core.errors import LesionError, UnavailableError


class RequestError(LesionError):
    """A request that is refused for its form, before anybody looks at the image."""

    default_code = "request_invalid"


def missing_file(form: Mapping[str, object], field: str) -> RequestError:
    """Return the refusal of a multipart form without a file in a field: it names the fields that came."""
    command = f"Send the image there, for example with curl -F {field}=@image.png."
    if field in form:
        message = f"The multipart field '{field}' came without a file name, so it was read as text. {command}"
    else:
        fields = ", ".join(sorted({name[:40] for name in form})) or "none"
        message = f"There is no file in the multipart field '{field}' (fields: {fields}). {command}"
    return RequestError(message, code="file_missing")


class BodyTimeoutError(RequestError):
    """A request whose body took too long to arrive."""

    default_code = "body_timeout"


class BusyError(UnavailableError):
    """A request that the server cannot answer now, though it might later."""

    default_code = "server_busy"


class ModelReplacedError(BusyError):
    """A request about the answer of a model that was replaced meanwhile."""

    default_code = "model_replaced"
