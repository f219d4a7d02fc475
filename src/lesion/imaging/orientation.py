"""The orientation of a picture, wherever a file says it: EXIF, XMP, or a raw profile in a PNG's text."""

import re
import struct

import numpy as np
from numpy.typing import NDArray

SWAPPED = frozenset({5, 6, 7, 8})  # whose height is the width as stored
REVERSED = frozenset({3, 4, 7, 8})  # whose first row is the last row or, if the axes are swapped, column as stored

_TAG = 274
_FORMATS = {1: "B", 3: "H", 4: "I"}  # of the value, by its type: byte, short or long
_MAX_ENTRIES = 512
_MAX_XMP = 2**20  # bytes that are searched
_XMP = re.compile(rb"\btiff:Orientation\s{0,9}(?:=\s{0,9}[\"']|>)\s{0,9}([1-8])\b")

_RAW_HEAD = re.compile(rb"\s{0,9}[^\n]{1,80}\n\s{0,20}\d{1,10}\n")  # the name, and the number of bytes


def first_orientation(exif: bytes = b"", raw_exif: bytes = b"", xmp: bytes = b"") -> int:
    """Return the orientation, 1 to 8, of the first of these that gives one, otherwise 1.

    Args:
        exif: A block of EXIF data.
        raw_exif: A raw profile as ImageMagick and exiftool write it into the text of a PNG: a name, a number of bytes,
            and hexadecimal digits.
        xmp: An XMP packet.
    """
    return exif_orientation(exif) or exif_orientation(raw_profile(raw_exif)) or xmp_orientation(xmp) or 1


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, of an EXIF block, which is built like a TIFF file.

    It is None where it is missing or damaged: bad metadata must not make the picture unreadable.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order, positions = first_directory(exif)
    try:
        for position in positions:
            if (value := entry_orientation(exif, order, position)) is not None:
                return value
    except struct.error:
        pass
    return None


def first_directory(exif: bytes) -> tuple[str, range]:
    """Return byte order and positions of the entries of the first directory; none where the block is damaged.

    The positions are not checked, so that reading an entry may raise a struct.error.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return "", range(0)
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
    except struct.error:
        return order, range(0)
    return order, range(start + 2, start + 2 + 12 * min(count, _MAX_ENTRIES), 12)


def entry_orientation(data: bytes, order: str, position: int) -> int | None:
    """Return the orientation that one entry of a TIFF directory gives; None if it is another entry or not 1 to 8."""
    tag, kind, number = struct.unpack_from(order + "HHI", data, position)
    if tag != _TAG or number != 1 or kind not in _FORMATS:
        return None
    (value,) = struct.unpack_from(order + _FORMATS[kind], data, position + 8)
    return int(value) if 1 <= value <= 8 else None


def xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation, 1 to 8, that an XMP packet gives as an attribute or an element; None without one."""
    match = _XMP.search(xmp[:_MAX_XMP])
    return int(match[1]) if match else None


def raw_profile(text: bytes) -> bytes:
    """Return the bytes of a raw profile, empty where it is damaged."""
    head = _RAW_HEAD.match(text)
    try:
        return bytes.fromhex(text[head.end() :].decode("ascii")) if head else b""
    except ValueError:
        return b""


def orient(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rotate and flip a stored image, uint8 (H, W, 3), upright; return it contiguous.

    The EXIF orientation is 1 to 8 (Exif 3.0, tag 274); 5 to 8 swap height and width.
    """
    if orientation in (3, 4, 6, 7):
        image = image[::-1]
    if orientation in (2, 3, 7, 8):
        image = image[:, ::-1]
    if orientation in SWAPPED:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image)
