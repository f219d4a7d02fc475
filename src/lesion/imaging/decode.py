"""The only image decoder: turns the bytes of a file into RGB pixels, or refuses them with one clear error.

Training, uploads and serving all decode here, so the network sees the same pixels in production as in training.
Everything that the header can tell is refused before any pixel is decoded, Pillow gets a file without metadata, and
``Limits.memory`` bounds what decoding holds, without the whole result of a large image, which the server never asks
for. No global setting of Pillow is changed: calls from many threads are safe.
"""

import io
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from lesion.core.errors import ImageError
from lesion.imaging import refusals
from lesion.imaging.dicom.recognition import is_dicom
from lesion.imaging.exact_samples import sample_bands
from lesion.imaging.formats.device import exif_device
from lesion.imaging.formats.header import Header
from lesion.imaging.formats.jpeg_ending import with_endings
from lesion.imaging.formats.png_rows import check_rows
from lesion.imaging.headers import read_header
from lesion.imaging.limits import (
    DEFAULT_LIMITS,
    GRAY_BYTES,
    RGB_BYTES,
    Limits,
    check_bytes,
    check_memory,
    check_samples,
    check_size,
    too_many_bytes,
)
from lesion.imaging.orientation import SWAPPED
from lesion.imaging.pixels import MODES, rgb_bands, same_pixels
from lesion.imaging.refusals import UnreadableFileError
from lesion.imaging.signatures import other_image_type

# The rules by which pixels come about; a bundle records the version that it was trained with. Version 1 scaled gray of
# 16 bits by its brightest pixel, cut color to its upper 8 bits, showed what is transparent everywhere as black,
# left color profiles and orientations outside of EXIF aside, and let padding and hot pixels of DICOM decide its range.
# Version 2 reduced no other large pictures than JPEG before they are fitted.
VERSION = 3

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # and DICOM, with the extra lesion[dicom]

_LARGE_PIXELS = 16_000_000  # to decode it several times, or to hold it twice, takes too much

# The classes themselves, not Image.open: no other parser can run, and Pillow's own warning about many pixels is not
# triggered.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts about an image that need no decoding."""

    format: str  # one of `FORMATS`, or DICOM
    mode: str  # Pillow's name of the pixel layout as stored, for example L or RGB
    width: int  # of the decoded array, after EXIF orientation
    height: int
    bytes: int  # of the file
    device: str  # that took the picture, as its metadata name it; empty where they do not


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS, *, target_side: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file to RGB.

    The orientation (EXIF, otherwise XMP) is applied, and a color profile becomes sRGB. Transparent pixels are blended
    with black: that is the background of a scan, and the stored color of a fully transparent pixel is arbitrary; a
    picture that is transparent everywhere is shown without transparency. Grayscale and color of more than 8 bits are
    scaled from the smallest of 8, 10, 12, 14 and 16 bits that holds all pixels but one in a thousand.

    Args:
        data: The whole file.
        limits: Checked before anything is decoded.
        target_side: The size that the image will be reduced to. A JPEG may then be decoded at a half, quarter or eighth
            of its size, and what has more than 16 megapixels is reduced at once, as long as its shorter side stays at
            least twice as long as this. That takes less time and memory, and hardly changes the pixels after resizing.

    Returns:
        uint8 (H, W, 3), contiguous and writable.

    Raises:
        ImageError: With the codes image_empty, image_too_many_bytes, image_too_many_pixels, image_too_small,
            image_not_recognised, image_type_not_supported, image_animated, image_truncated, image_corrupt or
            image_mode_not_supported. Nothing else is raised, whatever the bytes.
    """
    check_bytes(data, limits)
    if is_dicom(data):
        from lesion.imaging.dicom.picture import decode as decode_dicom  # an optional extra

        return decode_dicom(data, limits)
    header = _checked_header(data, limits, target_side)
    with _refusals_of(header, data):
        (height, width), bands = _upright_bands(header, data, target_side)
        image, top = np.empty((height, width, 3), np.uint8), 0
        for band in bands:
            image[top : top + len(band)] = band
            top += len(band)
        return image


def decode_in_bands(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of what `decode` returns, from the top, in bands: uint8 (rows, W, 3), perhaps read-only.

    It raises what `decode` raises, but holds a whole result only of DICOM files.
    """
    if is_dicom(data):
        yield decode(data, limits)
        return
    check_bytes(data, limits)
    header = _checked_header(data, limits)
    with _refusals_of(header, data):
        yield from _upright_bands(header, data, None)[1]


def probe(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ImageFacts:
    """Check and describe an image file by its header alone; raise every refusal of `decode` that needs no decoding."""
    check_bytes(data, limits)
    if is_dicom(data):
        from lesion.imaging.dicom.picture import probe as probe_dicom

        mode, width, height, device = probe_dicom(data, limits)
        return ImageFacts("DICOM", mode, width, height, len(data), device)
    header = _checked_header(data, limits)
    with _refusals_of(header, data):
        mode = _mode(header)
    width, height = header.width, header.height
    if header.orientation in SWAPPED:
        width, height = height, width
    return ImageFacts(header.format, mode, width, height, len(data), exif_device(header.exif))


def read(path: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a regular file, or one that a link points to, after a check of its size against ``limits.max_bytes``.

    The codes of the ImageError are image_not_found, image_not_a_file, image_unreadable and image_too_many_bytes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise UnreadableFileError(f"{path} is {kind}, not an image file; name a file.", code="image_not_a_file")
        if status.st_size > limits.max_bytes:
            raise too_many_bytes(f"{path} has {status.st_size:,} bytes", limits)
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise refusals.ImageNotFoundError(f"There is no file {path}; check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise UnreadableFileError(f"{path} cannot be read ({error}); check its name and permissions.") from error
    if len(data) > limits.max_bytes:  # the file grew in the meantime
        raise too_many_bytes(f"{path} has more than {limits.max_bytes:,} bytes", limits)
    return data


def perceptual_hash(image: NDArray[np.uint8]) -> int:
    """Return a 64-bit hash of the lowest cosine frequencies of an image, gray (H, W) or RGB (H, W, 3).

    It is imagehash's ``phash``. Images that look alike differ in few bits. The highest bit of the unsigned number is
    the first bit of the first row.
    """
    return int(str(imagehash.phash(Image.fromarray(image))), 16)


def _checked_header(data: bytes, limits: Limits, target_side: int | None = None) -> Header:
    header, supported = read_header(data), ", ".join(FORMATS)
    if header is None:
        if kind := other_image_type(data):
            raise refusals.wrong_type(kind, f"save the picture as one of {supported}")
        raise refusals.ImageTypeError(
            f"The {len(data):,} bytes are not recognized as an image, whatever the name of the file; send one of "
            f"{supported}.",
            code="image_not_recognised",
        )
    check_size(header.format, header.width, header.height, limits)
    if header.animated:
        raise refusals.several_pictures(header.format)
    if header.layout:
        check_samples(header.format, header.width * header.height * header.layout.bytes)
    pictures = 1 if header.ended else 2  # to compare them
    pixels = header.width * header.height // _divisor(header, target_side) ** 2
    one_band = header.layout is not None and header.orientation in SWAPPED
    result = pixels * (RGB_BYTES + GRAY_BYTES if one_band else GRAY_BYTES) // _step(header, target_side) ** 2
    check_memory(header.format, header.buffers + pixels * pictures * header.pixel_bytes + result, limits)
    return header


def _upright_bands(
    header: Header, data: bytes, target_side: int | None
) -> tuple[tuple[int, int], Iterator[NDArray[np.uint8]]]:
    """Return height and width of a picture, perhaps of a part of its size, and its rows in bands."""
    if not header.whole:
        raise refusals.truncated(header.format, data)
    step = _step(header, target_side)
    if header.layout:
        size = header.width, header.height
        bands = sample_bands(header, header.layout, step, header.orientation)
    else:
        picture = _loaded(header, data, _divisor(header, target_side))
        size = picture.size
        bands = rgb_bands(picture, header.format, header.profile, step, header.orientation)
    width, height = (-(-side // step) for side in size)
    return (width, height) if header.orientation in SWAPPED else (height, width), bands


def _loaded(header: Header, data: bytes, divisor: int) -> Image.Image:
    """Decode a picture by Pillow."""
    if not header.ended:
        return _load_without_end(header, data)
    with _open(header) as picture:
        if divisor > 1:
            picture.draft(None, (header.width // divisor, header.height // divisor))
        picture.load()
        if header.format == "PNG":
            check_rows(header.picture, picture)
        return picture


def _mode(header: Header) -> str:
    if header.layout:
        return "I;16" if header.layout.mode == "L" else header.layout.mode
    with _open(header) as picture:
        return picture.mode


def _load_without_end(header: Header, data: bytes) -> Image.Image:
    """Decode a JPEG without an end marker; refuse it if pixels are missing."""
    first: Image.Image | None = None
    large = header.width * header.height > _LARGE_PIXELS
    for file in with_endings(header.picture, large=large):
        with _open(replace(header, picture=file)) as picture:
            picture.load()
            if first is not None and not same_pixels(first, picture):
                raise refusals.truncated(header.format, data)
            first = picture.copy() if first is None else first
    if first is None:
        raise refusals.truncated(header.format, data)
    return first


def _open(header: Header) -> ImageFile.ImageFile:
    """Let Pillow read the header, without decoding any pixels."""
    picture = _OPENERS[header.format](io.BytesIO(header.picture))
    if picture.size != (header.width, header.height):
        raise refusals.corrupt(header.format, "it gives its size twice and differently")
    if picture.mode not in MODES:
        raise refusals.unsupported(header.format, f"pixels of the kind {picture.mode}")
    return picture


def _divisor(header: Header, target_side: int | None) -> int:
    """Return 8, 4 or 2 for a JPEG whose shorter side, divided by it, is at least ``2 * target_side``; otherwise 1."""
    if target_side is None or header.format != "JPEG" or not header.ended:
        return 1
    side = min(header.width, header.height)
    return next((divisor for divisor in (8, 4, 2) if side // divisor >= 2 * target_side), 1)


def _step(header: Header, target_side: int | None) -> int:
    """Return by how much a large picture of another format may be reduced, so that less of it is held twice."""
    if target_side is None or header.format == "JPEG" or header.width * header.height <= _LARGE_PIXELS:
        return 1
    return max(1, min(header.width, header.height) // (2 * target_side))


@contextmanager
def _refusals_of(header: Header, data: bytes) -> Iterator[None]:
    """Raise an ImageError for every error: a third-party parser given hostile bytes can raise anything."""
    try:
        yield
    except Exception as error:
        raise _refusal(error, header, data) from error


def _refusal(error: Exception, header: Header, data: bytes) -> ImageError:
    """Translate an error of Pillow."""
    if isinstance(error, ImageError):
        return error
    kind, message = header.format, str(error).lower()
    if isinstance(error, (MemoryError, Image.DecompressionBombError)):
        return refusals.out_of_memory(kind)
    if isinstance(error, EOFError) or "truncated" in message or "not enough image data" in message:
        return refusals.truncated(kind, data)
    if "unsupported" in message or "unknown pixel mode" in message or "cannot handle" in message:
        return refusals.unsupported(kind, "a rare pixel layout")
    return refusals.corrupt(kind, "its pixel data is damaged")
