"""Limits on the images that are decoded, and the checks that need no decoding."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from lesion.core.errors import ConfigError, ImageError
from lesion.imaging.refusals import EmptyImageError, ImageMemoryError, ImageTooLargeError, corrupt

# Of a picture whose samples are read one by one (see SampleLayout): as many as the largest of 8 bits has by default.
# No setting: what one door takes, every other one takes too.
MAX_SAMPLE_BYTES = 150_000_000
RGB_BYTES = 3  # of a pixel
GRAY_BYTES = 1  # which is what remains of a picture whose rows are examined in bands
_PIXEL_BYTES = 6  # color of 8 bits takes five: Pillow's four, and one of gray
_ACCEPTED_PIXEL_BYTES = 32  # more than any kind of file takes


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an image may be, and how small.

    They are the settings ``max_image_bytes``, ``max_pixels`` and ``min_side`` of a server (``server``) and of a
    training (``data.limits``). ``lesion predict`` uses those that its model was trained with. A retraining takes every
    image that a server has accepted, whatever that server's limits were: see ``covering``.
    """

    max_bytes: int = 20 * 2**20  # of the file
    max_pixels: int = 50_000_000  # width × height
    min_side: int = 16  # the shorter side in pixels
    # Bytes that decoding may hold at once, in addition to the file and a whole result; None: six for each of the most
    # pixels.
    max_memory: int | None = field(default=None, compare=False)

    @property
    def memory(self) -> int:
        """Return how many bytes decoding may hold at once, in addition to the file and a whole result."""
        return _PIXEL_BYTES * self.max_pixels if self.max_memory is None else self.max_memory

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> Self:
        """Return the limits of a section ``data.limits``; settings that are left out have their defaults.

        Raises:
            ConfigError: A setting is unknown, or not a whole number above 0.
        """
        values = dict(settings or {})
        if unknown := sorted(set(values) - set(_SETTINGS)):
            raise ConfigError(f"data.limits has no setting {', '.join(unknown)}; it has {', '.join(_SETTINGS)}.")
        for name, value in values.items():
            if type(value) is not int or value < 1:
                raise ConfigError(f"data.limits.{name}={value} must be a whole number, more than 0.")
        return cls(**{_SETTINGS[name]: value for name, value in values.items()})

    def covering(self, max_bytes: int, max_pixels: int, min_side: int) -> "Limits":
        """Return these limits, wide enough for images that were accepted before: by their facts, under other limits."""
        pixels = max(self.max_pixels, max_pixels)
        return Limits(
            max(self.max_bytes, max_bytes), pixels, max(1, min(self.min_side, min_side)), _ACCEPTED_PIXEL_BYTES * pixels
        )


_SETTINGS = {"max_image_bytes": "max_bytes", "max_pixels": "max_pixels", "min_side": "min_side"}

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


def check_samples(kind: str, size: int) -> None:
    """Refuse a picture, of 16 bits for example, whose samples take more than ``MAX_SAMPLE_BYTES``."""
    if size > MAX_SAMPLE_BYTES:
        raise ImageTooLargeError(
            f"The {kind} image takes {size:,} bytes once it is decoded, more than the {MAX_SAMPLE_BYTES:,} allowed; "
            "make it smaller, or save it with 8 bits.",
            code="image_too_many_pixels",
        )


def check_memory(kind: str, needed: int, limits: Limits) -> None:
    """Refuse (image_too_many_pixels) a picture whose decoding would hold more than ``limits.memory`` bytes at once."""
    if needed > limits.memory:
        raise ImageMemoryError(
            f"The {kind} image takes {needed:,} bytes while it is decoded, more than the {limits.memory:,} allowed; "
            "make it smaller, or save it as PNG or as a JPEG that is not progressive.",
        )


def too_many_bytes(size: str, limits: Limits) -> ImageTooLargeError:
    """Return the refusal of a file with more than ``limits.max_bytes``; ``size`` says which file and how large."""
    return ImageTooLargeError(
        f"{size}, more than the {limits.max_bytes:,} allowed; make the image smaller or compress it more.",
        code="image_too_many_bytes",
    )
