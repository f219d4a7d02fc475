"""Decode every image of a dataset once and record the facts that a manifest needs."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from lesion.core.errors import ImageError
from lesion.core.files import bytes_sha256
from lesion.deduplication.features import make_thumbnail
from lesion.identity.pseudonyms import Pseudonyms
from lesion.identity.received_files import ReceivedFile, deidentify
from lesion.imaging.decode import decode_in_bands, perceptual_hash, probe, read
from lesion.imaging.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The facts of one image; hashes are hexadecimal."""

    sha256: str
    pixel_sha256: str  # of the decoded pixels
    phash: str  # perceptual hash, 16 digits
    width: int  # in pixels, after orientation
    height: int
    mode: str  # the file's color mode, as Pillow names it
    format: str
    device: str  # that took the picture, as its metadata name it
    bytes: int
    brightness: float  # mean gray value, 0 to 255
    thumbnail: NDArray[np.uint8]  # the grayscale thumbnail by which near-duplicates are found, (48, 48)


def examine(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ImageRecord:
    """Decode the bytes of an image file once and return its facts; raise the ImageError with which it is refused.

    The hash of the pixels is the SHA-256 of the shape ``(H, W, 3)``, written so, and of the RGB values: files that
    differ only in metadata or lossless format have the same one.
    """
    facts = probe(data, limits)
    digest = hashlib.sha256(repr((facts.height, facts.width, 3)).encode())
    gray, top, total = np.empty((facts.height, facts.width), np.uint8), 0, 0
    for band in decode_in_bands(data, limits):  # a large picture is never in memory as a whole
        digest.update(band.data)
        total += int(band.sum(dtype=np.int64))
        gray[top : top + len(band)] = np.asarray(Image.fromarray(band).convert("L"))
        top += len(band)
    return ImageRecord(
        sha256=bytes_sha256(data),
        pixel_sha256=digest.hexdigest(),
        phash=f"{perceptual_hash(gray):016x}",
        width=facts.width,
        height=facts.height,
        mode=facts.mode,
        format=facts.format,
        device=facts.device,
        bytes=len(data),
        brightness=total / (3 * gray.size),
        thumbnail=make_thumbnail(gray),
    )


def examine_received(data: bytes, limits: Limits, pseudonyms: Pseudonyms) -> tuple[ReceivedFile, ImageRecord]:
    """Take from an image file what identifies a person, and examine what may be stored; see `deidentify`."""
    received = deidentify(data, limits, pseudonyms)
    # What is stored may have more bytes than what was sent, since pixels are not compressed in it.
    return received, examine(received.data, replace(limits, max_bytes=max(limits.max_bytes, len(received.data))))


def inspect(path: Path, limits: Limits = DEFAULT_LIMITS) -> ImageRecord | ImageError:
    """Return the facts of one image file, or the error with which the decoder refuses it."""
    try:
        return examine(read(path, limits), limits)
    except ImageError as error:
        return error


def inspect_all(
    paths: Sequence[Path], progress: bool = True, limits: Limits = DEFAULT_LIMITS
) -> list[ImageRecord | ImageError]:
    """Inspect images on every core, in their order, with a progress bar on a terminal."""
    # Threads, not processes: they start at once, and decoding and hashing release the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        results = pool.map(partial(inspect, limits=limits), paths)
        return list(track(results, f"Reading {len(paths):,} images", len(paths), disable=not progress))


def number_patients(paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Return a name such as ``DICOM patient 3`` for each DICOM file, the same for files with one Patient ID.

    It is empty for files without a Patient ID, which itself is written nowhere. All files must be readable.
    """
    from lesion.imaging.dicom.deidentification import read_patient_id  # an optional extra

    with ThreadPoolExecutor() as pool:
        names = list(pool.map(lambda path: read_patient_id(read(path, limits), limits), paths))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)), start=1)}
    return [f"DICOM patient {numbers[name]}" if name else "" for name in names]
