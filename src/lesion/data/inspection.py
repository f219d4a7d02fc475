"""Decode every image of a dataset once and note what a manifest needs to know of it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from lesion.core.errors import ImageError
from lesion.deduplication.duplicates import Descriptor, describe
from lesion.imaging.decode import (
    DEFAULT_LIMITS,
    Limits,
    bytes_sha256,
    decode,
    perceptual_hash,
    pixels_sha256,
    probe,
    read,
)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What one image is.

    Attributes:
        sha256: Hash of the file's bytes, hex.
        pixel_sha256: Hash of the decoded pixels, hex.
        phash: Perceptual hash, 16 hex digits.
        width: Width in pixels, after orientation.
        height: Height in pixels, after orientation.
        mode: The file's colour mode, as Pillow names it.
        format: The file's type.
        bytes: The file's size.
        brightness: Mean grey value, 0 to 255.
        descriptor: What the search for near-duplicates compares.
    """

    sha256: str
    pixel_sha256: str
    phash: str
    width: int
    height: int
    mode: str
    format: str
    bytes: int
    brightness: float
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that the decoder refused: its code and sentence."""

    code: str
    reason: str


def inspect(path: Path) -> ImageRecord | Refused:
    """Decode one image and note its facts, or why it was refused."""
    try:
        return examine(read(path))
    except ImageError as error:
        return Refused(error.code, error.message)


def examine(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ImageRecord:
    """Decode the bytes of an image file once and note its facts.

    Raises:
        ImageError: As `lesion.imaging.decode.decode` does.
    """
    facts = probe(data, limits)
    image = decode(data, limits)
    return ImageRecord(
        sha256=bytes_sha256(data),
        pixel_sha256=pixels_sha256(image),
        phash=f"{perceptual_hash(image):016x}",
        width=image.shape[1],
        height=image.shape[0],
        mode=facts.mode,
        format=facts.format,
        bytes=len(data),
        brightness=float(image.mean(dtype=np.float64)),
        descriptor=describe(image),
    )


def inspect_all(paths: Sequence[Path], progress: bool = True) -> list[ImageRecord | Refused]:
    """Inspect images on every core, in their order, with a progress bar on a terminal."""
    # Threads, not processes: decoding and hashing leave the interpreter's lock, and starting takes no seconds.
    with ThreadPoolExecutor() as pool:
        results = pool.map(inspect, paths)
        return list(track(results, f"Reading {len(paths):,} images", len(paths), disable=not progress))
