"""Errors meant for people: each says what was given, why it is refused and what to do."""

from typing import ClassVar


class LesionError(Exception):
    """Base of every error that Lesion raises on purpose.

    Args:
        message: A full sentence for the person who caused it.
        code: A stable machine-readable name; the class's default when left out.
        status: The HTTP status to answer with; the class's default when left out.
    """

    default_code: ClassVar[str] = "error"
    default_status: ClassVar[int] = 500

    def __init__(self, message: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status or self.default_status

    def __reduce__(self) -> tuple[object, ...]:
        """Keep code and status across process borders, where exceptions are rebuilt from ``args`` alone."""
        return _rebuild, (type(self), self.message, self.code, self.status)


def _rebuild(kind: type[LesionError], message: str, code: str, status: int) -> LesionError:
    return kind(message, code=code, status=status)


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
