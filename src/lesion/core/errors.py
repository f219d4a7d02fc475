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

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class NotFoundError(LesionError):
    """Something that was named does not exist."""

    default_code = "not_found"


class ConflictError(LesionError):
    """A change that does not fit the current state, or that somebody else made first."""

    default_code = "conflict"


class TooLargeError(LesionError):
    """More than a limit allows."""

    default_code = "too_large"


class UnsupportedTypeError(LesionError):
    """A file of a type that is not supported."""

    default_code = "type_not_supported"


class InvalidValueError(LesionError):
    """A value that cannot be used."""

    default_code = "value_invalid"


class UnavailableError(LesionError):
    """A needed service does not answer now, but may answer later."""

    default_code = "unavailable"


class NoSpaceError(UnavailableError):
    """A disk, a database or a store is full."""

    default_code = "storage_full"


class ImageError(LesionError):
    """An image that the decoder refuses."""

    default_code = "image_refused"


class DataError(LesionError):
    """A folder, table or split that cannot be used as a dataset."""

    default_code = "data_invalid"


class BundleError(LesionError):
    """A bundle that is incomplete or altered, or a folder that is not a bundle."""

    default_code = "bundle_refused"


class ConfigError(LesionError):
    """A setting, or a combination of settings, that cannot be used."""

    default_code = "config_invalid"
