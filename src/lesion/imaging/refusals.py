"""What may be decoded, and the sentences for what may not; shared by the image formats and DICOM."""

from dataclasses import dataclass

from lesion.core.errors import ImageError


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may cost at most, and how small it may be.

    Attributes:
        max_bytes: Size of the file.
        max_pixels: Width × height.
        min_side: The shorter side in pixels.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    min_side: int = 16


def check_bytes(data: bytes, limits: Limits) -> None:
    """Refuse an empty or too large file.

    Raises:
        ImageError: image_empty or image_too_many_bytes.
    """
    if not data:
        raise ImageError(
            "The image is empty (0 bytes), so there is nothing to decode; send the file's content.",
            code="image_empty",
            status=400,
        )
    if len(data) > limits.max_bytes:
        raise too_many_bytes(f"The image has {len(data):,} bytes", limits)


def check_size(kind: str, width: int, height: int, limits: Limits) -> None:
    """Refuse too many or too few pixels.

    Raises:
        ImageError: image_corrupt, image_too_many_pixels or image_too_small.
    """
    if width <= 0 or height <= 0:
        raise corrupt(kind, f"its header gives a size of {width} × {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"The {kind} image has {width:,} × {height:,} pixels, more than the {limits.max_pixels:,} allowed; make it "
            "smaller.",
            code="image_too_many_pixels",
            status=413,
        )
    if min(width, height) < limits.min_side:
        raise ImageError(
            f"The {kind} image of {width:,} × {height:,} pixels is too small to judge; send one with at least "
            f"{limits.min_side} pixels on each side.",
            code="image_too_small",
        )


def too_many_bytes(given: str, limits: Limits) -> ImageError:
    """The refusal of a file that is too large."""
    return ImageError(
        f"{given}, more than the {limits.max_bytes:,} allowed; make the image smaller or compress it more.",
        code="image_too_many_bytes",
        status=413,
    )


def out_of_memory(kind: str) -> ImageError:
    """The refusal of a picture that is within the limits but not within the machine's memory."""
    return ImageError(
        f"The {kind} image does not fit in memory once it is decoded; make it smaller.",
        code="image_too_many_pixels",
        status=413,
    )


def truncated(kind: str, data: bytes) -> ImageError:
    """The refusal of a file that ends too early."""
    return ImageError(
        f"The {kind} image of {len(data):,} bytes ends before its picture does, so part of it was lost in copying or "
        "uploading; send the whole file again.",
        code="image_truncated",
    )


def corrupt(kind: str, why: str) -> ImageError:
    """The refusal of a file that contradicts itself."""
    return ImageError(
        f"The {kind} image cannot be decoded because {why}; open it in an image viewer and save it again.",
        code="image_corrupt",
    )


def unsupported(kind: str, what: str) -> ImageError:
    """The refusal of a pixel layout or compression outside the list."""
    return ImageError(
        f"The {kind} image uses {what}, which is not supported; save it as an 8-bit RGB or greyscale PNG or JPEG.",
        code="image_mode_not_supported",
    )


def several_pictures(kind: str) -> ImageError:
    """The refusal of animations and pages."""
    return ImageError(
        f"The {kind} file holds several pictures (an animation, pages or slices), and which one is meant cannot be "
        "known; save the one to look at as a file of its own.",
        code="image_animated",
    )


def wrong_type(kind: str, instead: str) -> ImageError:
    """The refusal of a real image of a type outside the list."""
    return ImageError(
        f"The file is of type {kind}, which is not supported; {instead}.", code="image_type_not_supported", status=415
    )
