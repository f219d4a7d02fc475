"""Errors for users: each message says what was given, why it is refused and what to do.

Two families of classes tell errors apart. The *subject* says what is wrong: an image, a dataset, a bundle, a setting.
The *kind* says in which way: not found, in conflict, too large. A concrete error often has both, the kind first:
``class ImageTooLargeError(TooLargeError, ImageError)``. Which HTTP status a class is answered with is decided in
``serve/http/problems.py``, and nowhere in this package.
"""

from typing import ClassVar


class LesionError(Exception):
    """Base of every error that Lesion raises on purpose.

    Args:
        message: A full sentence for the person who caused it.
        code: A stable machine-readable name; the class's default when left out.
    """

    default_code: ClassVar[str] = "error"
    default_status: ClassVar[int] = 500

    def __init__(self, message: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status or self.default_status

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the code across process borders, where exceptions are rebuilt from ``args`` alone."""
        return _rebuild, (type(self), self.message, self.code, self.status)


def _rebuild(kind: type[LesionError], message: str, code: str, status: int) -> LesionError:
    return kind(message, code=code, status=status)


class NotFoundError(LesionError):
    """Something that was named does not exist."""

    default_code = "not_found"
    default_status = 404


class ConflictError(LesionError):
    """A change that does not fit the state of things, or that somebody else made first."""

    default_code = "conflict"
    default_status = 409


class TooLargeError(LesionError):
    """More than a limit allows."""

    default_code = "too_large"
    default_status = 413


class UnsupportedTypeError(LesionError):
    """A file of a type that is not taken."""

    default_code = "type_not_supported"
    default_status = 415


class InvalidValueError(LesionError):
    """A value that cannot be used."""

    default_code = "value_invalid"
    default_status = 422


class UnavailableError(LesionError):
    """Something needed does not answer now, and may later."""

    default_code = "unavailable"
    default_status = 503


class ImageError(LesionError):
    """An image that the decoder refuses."""

    default_code = "image_refused"
    default_status = 422


class DataError(LesionError):
    """A folder, table or split that cannot be used as a dataset."""

    default_code = "data_invalid"
    default_status = 422


class BundleError(LesionError):
    """A bundle that is incomplete, altered or not a bundle."""

    default_code = "bundle_refused"
    default_status = 503


class ConfigError(LesionError):
    """A setting, or a combination of settings, that makes no sense."""

    default_code = "config_invalid"
    default_status = 400
