"""Limits on the images that are decoded, and the checks that need no decoding."""

from dataclasses import dataclass

from lesion.core.errors import ImageError
from lesion.imaging.refusals import EmptyImageError, ImageTooLargeError, corrupt


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an image may be, and how small."""

    max_bytes: int = 20 * 2**20  # of the file
    max_pixels: int = 50_000_000  # width × height
    min_side: int = 16  # the shorter side in pixels


DEFAULT_LIMITS = Limits()


def check_bytes(data: bytes, limits: Limits) -> None:
    """Refuse an empty file (image_empty) and one that is too large (image_too_many_bytes)."""
    if not data:
        raise EmptyImageError("The image is empty (0 bytes), so there is nothing to decode; send the file's content.")
    if len(data) > limits.max_bytes:
        raise too_many_bytes(f"The image has {len(data):,} bytes", limits)


def check_size(kind: str, width: int, height: int, limits: Limits) -> None:
    """Refuse an image with too many or too few pixels: image_corrupt, image_too_many_pixels or image_too_small."""
    if width <= 0 or height <= 0:
        raise corrupt(kind, f"its header gives a size of {width} × {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"The {kind} image has {width:,} × {height:,} pixels, more than the {limits.max_pixels:,} allowed; make it "
            "smaller.",
            code="image_too_many_pixels",
        )
    if min(width, height) < limits.min_side:
        raise ImageError(
            f"The {kind} image of {width:,} × {height:,} pixels is too small to judge; send one with at least "
            f"{limits.min_side} pixels on each side.",
            code="image_too_small",
        )


def too_many_bytes(size: str, limits: Limits) -> ImageTooLargeError:
    """Return the refusal of a file with more than ``limits.max_bytes``; ``size`` says which file and how large."""
    return ImageTooLargeError(
        f"{size}, more than the {limits.max_bytes:,} allowed; make the image smaller or compress it more.",
        code="image_too_many_bytes",
    )
