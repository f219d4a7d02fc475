"""Errors for images that cannot be decoded; shared by the image formats and DICOM.

Each function returns an error for one ``code``, and its sentence: what is wrong, and what to do after the semicolon.
"""

from lesion.core.errors import ImageError, NotFoundError, TooLargeError, UnsupportedTypeError


class EmptyImageError(ImageError):
    """An image file of 0 bytes."""

    default_code = "image_empty"


class ImageTooLargeError(TooLargeError, ImageError):
    """More bytes, pixels or memory than the limits allow."""

    default_code = "image_too_many_pixels"


class ImageMemoryError(ImageTooLargeError):
    """A picture whose decoding would hold more memory than allowed, known before it begins."""


class ImageTypeError(UnsupportedTypeError, ImageError):
    """A file that is no image, or an image of a type that is not supported."""

    default_code = "image_type_not_supported"


class ImageNotFoundError(NotFoundError, ImageError):
    """A path without a file."""

    default_code = "image_not_found"


class UnreadableFileError(ImageError):
    """A path that is not a regular file, or a file that the operating system does not let us read."""

    default_code = "image_unreadable"


def out_of_memory(kind: str) -> ImageError:
    """Return the refusal of a picture that is within the limits but does not fit in the machine's memory."""
    return ImageTooLargeError(f"The {kind} image does not fit in memory once it is decoded; make it smaller.")


def truncated(kind: str, data: bytes) -> ImageError:
    """Return the refusal of a file that ends too early."""
    return ImageError(
        f"The {kind} image of {len(data):,} bytes ends before its picture does, so part of it was lost in copying or "
        "uploading; send the whole file again.",
        code="image_truncated",
    )


def corrupt(kind: str, why: str) -> ImageError:
    """Return the refusal of a file that contradicts itself."""
    return ImageError(
        f"The {kind} image cannot be decoded because {why}; open it in an image viewer and save it again.",
        code="image_corrupt",
    )


def unsupported(kind: str, feature: str) -> ImageError:
    """Return the refusal of a pixel layout or compression that is not supported."""
    return ImageError(
        f"The {kind} image uses {feature}, which is not supported; save it as an 8-bit RGB or grayscale PNG or JPEG.",
        code="image_mode_not_supported",
    )


def several_pictures(kind: str) -> ImageError:
    """Return the refusal of an animation, or of several pages or slices."""
    return ImageError(
        f"The {kind} file contains several pictures (an animation, pages or slices), and there is no way to know which "
        "one is meant; save that one as a separate file.",
        code="image_animated",
    )


def wrong_type(kind: str, advice: str) -> ImageError:
    """Return the refusal of a real image of a type that is not supported."""
    return ImageTypeError(f"The file is of type {kind}, which is not supported; {advice}.")
