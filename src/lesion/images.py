"""The one decoder: the bytes of an image file become RGB pixels, or one clear refusal.

Training, upload and serving all decode here, so that a network is served the pixels it was trained on. Whatever the
header can tell is refused before anything is decoded, Pillow is handed a file without metadata, and memory stays below
about 8 bytes a pixel of ``Limits.max_pixels``. No Pillow setting is changed: calls from many threads are safe.
"""

import hashlib
import io
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from lesion.errors import ImageError
from lesion.image_headers import Header, corrupt, read_header, truncated, unsupported
from lesion.image_signatures import other_image_type

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

# The classes themselves rather than Image.open: no other parser can run, and Pillow's own pixel warning stays silent.
_OPENERS = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
_DEPTHS = (8, 10, 12, 14, 16)  # what cameras, scanners and scans store in 16 bits
_BAND_PIXELS = 2**22


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


def decode(data: bytes, limits: Limits = Limits(), *, at_least: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file to RGB.

    EXIF orientation is applied; colour profiles are not. Transparent pixels are laid on black: that is the background
    of a scan, and what colour lies under full transparency is arbitrary. Greyscale of more than 8 bits is scaled from
    the smallest of 8, 10, 12, 14 and 16 bits that holds its maximum.

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
        from lesion import dicom

        return dicom.decode(data, limits)
    header = _checked_header(data, limits)
    try:
        with _open(header) as picture:
            if at_least is not None and header.format == "JPEG":
                _draft(picture, at_least)
            picture.load()
            return _oriented(_to_rgb(picture, header.format), header.orientation)
    except Exception as error:  # third-party parsers on hostile bytes: the list of what they raise has no end
        raise _refusal(error, header, data) from error


def probe(data: bytes, limits: Limits = Limits()) -> ImageFacts:
    """Check and describe an image by its header alone.

    Args:
        data: The whole file.
        limits: What to refuse.

    Raises:
        ImageError: Every refusal of `decode` that needs no decoding.
    """
    check_bytes(data, limits)
    if _is_dicom(data):
        from lesion import dicom

        return dicom.probe(data, limits)
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


def read(path: Path, limits: Limits = Limits()) -> bytes:
    """Read an image file whose size is checked first.

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
            raise _too_many_bytes(f"{path} has {status.st_size:,} bytes", limits)
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"There is no file {path}; check the path.", code="image_not_found", status=404) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ImageError(
            f"{path} cannot be read ({error}); check its name and permissions.", code="image_unreadable", status=400
        ) from error
    if len(data) > limits.max_bytes:  # it grew meanwhile
        raise _too_many_bytes(f"{path} has more than {limits.max_bytes:,} bytes", limits)
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
        An unsigned 64-bit number, the first row's first bit being the highest.
    """
    return int(str(imagehash.phash(Image.fromarray(image))), 16)


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
        raise _too_many_bytes(f"The image has {len(data):,} bytes", limits)


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
            f"The {kind} image has {width:,} × {height:,} pixels, too few to judge; each side must have at least "
            f"{limits.min_side}.",
            code="image_too_small",
        )


def _too_many_bytes(given: str, limits: Limits) -> ImageError:
    return ImageError(
        f"{given}, more than the {limits.max_bytes:,} allowed; make the image smaller or compress it more.",
        code="image_too_many_bytes",
        status=413,
    )


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _checked_header(data: bytes, limits: Limits) -> Header:
    header = read_header(data)
    supported = ", ".join(FORMATS)
    if header is None:
        if kind := other_image_type(data):
            raise ImageError(
                f"The file is of type {kind}, which is not supported; save it as one of {supported}.",
                code="image_type_not_supported",
                status=415,
            )
        raise ImageError(
            f"The {len(data):,} bytes are no image that is recognised, whatever the file's name says; send one of "
            f"{supported}.",
            code="image_not_recognised",
            status=415,
        )
    check_size(header.format, header.width, header.height, limits)
    if header.animated:
        raise ImageError(
            f"The {header.format} file holds several pictures (an animation or pages), and which one is meant cannot be "
            "known; save the one to look at as a file of its own.",
            code="image_animated",
        )
    return header


def _open(header: Header) -> ImageFile.ImageFile:
    """Let Pillow read the header; nothing is decoded yet."""
    picture = _OPENERS[header.format](io.BytesIO(header.picture))
    if picture.size != (header.width, header.height):
        raise corrupt(header.format, "it gives its size twice and differently")
    if picture.mode not in _OPAQUE | _ALPHA | _DEEP:
        raise unsupported(header.format, f"pixels of the kind {picture.mode}")
    return picture


def _refusal(error: Exception, header: Header, data: bytes) -> ImageError:
    """Translate whatever Pillow raised."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, (MemoryError, Image.DecompressionBombError)):
        return ImageError(
            f"The {header.format} image of {header.width:,} × {header.height:,} pixels does not fit in memory; make it "
            "smaller.",
            code="image_too_many_pixels",
            status=413,
        )
    words = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in words or "not enough image data" in words:
        return truncated(header.format, data)
    if "unsupported" in words or "unknown pixel mode" in words or "cannot handle" in words:
        return unsupported(header.format, f"a pixel layout that Pillow cannot read ({error})")
    return corrupt(header.format, "its pixel data is damaged")


def _draft(picture: ImageFile.ImageFile, at_least: int) -> None:
    """Ask libjpeg for the smallest of 1/8, 1/4, 1/2 whose shorter side is at least ``2 * at_least``."""
    for scale in (8, 4, 2):
        width, height = (side // scale for side in picture.size)
        if min(width, height) >= 2 * at_least:
            picture.draft(None, (width, height))  # type: ignore[no-untyped-call]
            return


def _bands(picture: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The picture in strips of rows, so that conversions need little memory."""
    rows = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        whole = bottom - top == picture.height
        yield slice(top, bottom), picture if whole else picture.crop((0, top, picture.width, bottom))


def _to_rgb(picture: Image.Image, kind: str) -> NDArray[np.uint8]:
    """Convert any supported mode to uint8 (H, W, 3)."""
    image = np.empty((picture.height, picture.width, 3), np.uint8)
    if picture.mode in _DEEP:
        table = _depth_table(picture, kind)
        for rows, band in _bands(picture):
            image[rows] = table[np.asarray(band)][..., None]
        return image
    transparent = picture.mode in _ALPHA or picture.has_transparency_data
    for rows, band in _bands(picture):
        image[rows] = np.asarray(_on_black(band) if transparent else band.convert("RGB"))
    return image


def _on_black(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    black = Image.new("RGB", picture.size)
    black.paste(picture, mask=picture.getchannel("A"))
    return black


def _depth_table(picture: Image.Image, kind: str) -> NDArray[np.uint8]:
    """Table (65536,) from a stored value to 8 bits."""
    arrays = [(int(band.min()), int(band.max())) for band in (np.asarray(band) for _, band in _bands(picture))]
    low, high = min(low for low, _ in arrays), max(high for _, high in arrays)
    if low < 0 or high >= 2**16:
        raise unsupported(kind, f"pixel values from {low:,} to {high:,}, outside 0 to 65,535")
    top = 2 ** next(depth for depth in _DEPTHS if high < 2**depth) - 1
    values = np.arange(2**16, dtype=np.uint32)
    return np.minimum((values * 255 + top // 2) // top, 255).astype(np.uint8)


def _oriented(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror as EXIF says (Exif 3.0, tag 274): where the stored first row and column are seen."""
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image)
