"""The one decoder: the bytes of an image file become RGB pixels, or one clear refusal.

Training, upload and serving all decode here, so that a network is served the pixels it was trained on. Whatever the
header can tell is refused before anything is decoded, Pillow is handed a file without metadata, and memory stays
bounded by ``Limits.max_pixels``. No setting of Pillow is changed: calls from many threads are safe.
"""

import hashlib
import io
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from lesion.core.errors import ImageError
from lesion.imaging.headers import Header, read_header
from lesion.imaging.pixels import MODES, orient, to_rgb
from lesion.imaging.refusals import (
    Limits,
    check_bytes,
    check_size,
    corrupt,
    out_of_memory,
    several_pictures,
    too_many_bytes,
    truncated,
    unsupported,
    wrong_type,
)
from lesion.imaging.signatures import other_image_type

__all__ = [
    "DEFAULT_LIMITS",
    "FORMATS",
    "ImageFacts",
    "Limits",
    "bytes_sha256",
    "decode",
    "perceptual_hash",
    "pixels_sha256",
    "probe",
    "read",
]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # and DICOM, where pydicom is installed
DEFAULT_LIMITS = Limits()

# The classes themselves, not Image.open: no other parser can run, and Pillow's own pixel warning stays silent.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image without decoding it.

    Attributes:
        format: One of `FORMATS`, or ``DICOM``.
        mode: Pillow's name of the pixel layout as stored, for example ``L`` or ``RGB``.
        width: Columns of the decoded array, after EXIF orientation.
        height: Rows of the decoded array, after EXIF orientation.
        bytes: Size of the file.
    """

    format: str
    mode: str
    width: int
    height: int
    bytes: int


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS, *, at_least: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file to RGB.

    EXIF orientation is applied; colour profiles are not. Transparent pixels are laid on black: that is the background
    of a scan, and what colour lies under full transparency is arbitrary. Greyscale of more than 8 bits is scaled from
    the smallest of 8, 10, 12, 14 and 16 bits that holds its maximum; colour of 16 bits keeps the upper 8.

    Args:
        data: The whole file.
        limits: What to refuse before decoding.
        at_least: The size the image will be reduced to. A JPEG may then be decoded at a half, quarter or eighth as long
            as its shorter side stays at least twice this; faster, with hardly a difference after resizing.

    Returns:
        uint8 (H, W, 3), contiguous and writable.

    Raises:
        ImageError: With the codes image_empty, image_too_many_bytes, image_too_many_pixels, image_too_small,
            image_not_recognised, image_type_not_supported, image_animated, image_truncated, image_corrupt or
            image_mode_not_supported. Nothing else is raised, whatever the bytes.
    """
    check_bytes(data, limits)
    if _is_dicom(data):
        from lesion.imaging.dicom import decode as decode_dicom  # an optional extra

        return decode_dicom(data, limits)
    header = _checked_header(data, limits)
    try:
        with _open(header) as picture:
            if at_least is not None and header.format == "JPEG":
                _draft(picture, at_least)
            picture.load()
            return orient(to_rgb(picture, header.format), header.orientation)
    except Exception as error:  # a third-party parser on hostile bytes: the list of what it raises has no end
        raise _refusal(error, header, data) from error


def probe(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ImageFacts:
    """Check and describe an image by its header alone.

    Args:
        data: The whole file.
        limits: What to refuse.

    Raises:
        ImageError: Every refusal of `decode` that needs no decoding.
    """
    check_bytes(data, limits)
    if _is_dicom(data):
        from lesion.imaging.dicom import probe as probe_dicom

        mode, width, height = probe_dicom(data, limits)
        return ImageFacts("DICOM", mode, width, height, len(data))
    header = _checked_header(data, limits)
    try:
        with _open(header) as picture:
            mode = picture.mode
    except Exception as error:
        raise _refusal(error, header, data) from error
    width, height = header.width, header.height
    if header.orientation >= 5:
        width, height = height, width
    return ImageFacts(header.format, mode, width, height, len(data))


def read(path: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read an image file, whose size is checked first.

    Args:
        path: A regular file, or a link to one.
        limits: ``max_bytes`` is what counts here.

    Raises:
        ImageError: image_not_found, image_not_a_file, image_unreadable or image_too_many_bytes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise ImageError(f"{path} is {kind}, not an image file; name a file.", code="image_not_a_file", status=400)
        if status.st_size > limits.max_bytes:
            raise too_many_bytes(f"{path} has {status.st_size:,} bytes", limits)
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"There is no file {path}; check the path.", code="image_not_found", status=404) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ImageError(
            f"{path} cannot be read ({error}); check its name and permissions.", code="image_unreadable", status=400
        ) from error
    if len(data) > limits.max_bytes:  # it grew meanwhile
        raise too_many_bytes(f"{path} has more than {limits.max_bytes:,} bytes", limits)
    return data


def bytes_sha256(data: bytes) -> str:
    """SHA-256 of the file, in hex."""
    return hashlib.sha256(data).hexdigest()


def pixels_sha256(image: NDArray[np.uint8]) -> str:
    """SHA-256 of the decoded picture, in hex; equal for files that differ in metadata or lossless format alone.

    Args:
        image: uint8 (H, W, 3).
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def perceptual_hash(image: NDArray[np.uint8]) -> int:
    """64-bit hash of the lowest cosine frequencies; look-alikes differ in few bits (imagehash's ``phash``).

    Args:
        image: uint8 (H, W, 3).

    Returns:
        An unsigned 64-bit number whose highest bit is the first row's first.
    """
    return int(str(imagehash.phash(Image.fromarray(image))), 16)


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _checked_header(data: bytes, limits: Limits) -> Header:
    header, supported = read_header(data), ", ".join(FORMATS)
    if header is None:
        if kind := other_image_type(data):
            raise wrong_type(kind, f"save the picture as one of {supported}")
        raise ImageError(
            f"The {len(data):,} bytes are not recognised as an image, whatever the file's name says; send one of "
            f"{supported}.",
            code="image_not_recognised",
            status=415,
        )
    check_size(header.format, header.width, header.height, limits)
    if header.animated:
        raise several_pictures(header.format)
    return header


def _open(header: Header) -> ImageFile.ImageFile:
    """Let Pillow read the header; nothing is decoded yet."""
    picture = _OPENERS[header.format](io.BytesIO(header.picture))
    if picture.size != (header.width, header.height):
        raise corrupt(header.format, "it gives its size twice and differently")
    if picture.mode not in MODES:
        raise unsupported(header.format, f"pixels of the kind {picture.mode}")
    return picture


def _draft(picture: ImageFile.ImageFile, at_least: int) -> None:
    """Ask libjpeg for the smallest of 1/8, 1/4, 1/2 whose shorter side is at least ``2 * at_least``."""
    for scale in (8, 4, 2):
        width, height = (side // scale for side in picture.size)
        if min(width, height) >= 2 * at_least:
            picture.draft(None, (width, height))
            return


def _refusal(error: Exception, header: Header, data: bytes) -> ImageError:
    """Translate whatever Pillow raised."""
    if isinstance(error, ImageError):
        return error
    kind, words = header.format, str(error).lower()
    if isinstance(error, (MemoryError, Image.DecompressionBombError)):
        return out_of_memory(kind)
    if isinstance(error, EOFError) or "truncated" in words or "not enough image data" in words:
        return truncated(kind, data)
    if "unsupported" in words or "unknown pixel mode" in words or "cannot handle" in words:
        return unsupported(kind, "a pixel layout that is rare")
    return corrupt(kind, "its pixel data is damaged")
