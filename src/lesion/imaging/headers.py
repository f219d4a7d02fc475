"""Headers of image files, parsed by hand so that third-party decoders only ever get pixels.

Each parser returns the size, the EXIF orientation and the *picture*: the same file without its metadata. Text, color
profiles, EXIF, XMP and private tags are where decompression bombs and decoder warnings come from, and Lesion needs only
the orientation of all these. Every parser is linear in the number of bytes and decodes nothing.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lesion.imaging.refusals import corrupt, truncated, unsupported
from lesion.imaging.tiff import exif_orientation, read_directory

MAX_PARTS = 65_536  # chunks or segments; a 20 MB PNG in chunks of 1 KB has 20,000
MAX_SCANS = 100  # each scan of a progressive JPEG passes over the whole picture; real files have about 10

_JPEG_EXIF, _JPEG_SCAN, _JPEG_END = 0xE1, 0xDA, 0xD9
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # they contain the size
_JPEG_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD9)) | {0x00, 0x01}
_JPEG_METADATA = (frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE}) | {0xFE}  # JFIF and Adobe stay: they name the colors
_PNG_PIXELS, _PNG_END = b"IDAT", b"IEND"
_PNG_UNIQUE = frozenset({b"IHDR", b"PLTE", b"tRNS", _PNG_END})  # chunks that decoding needs and that occur once
_BMP_UNCOMPRESSED = (0, 3)  # BI_RGB and BI_BITFIELDS


class Header(NamedTuple):
    """The header of an image file."""

    format: str  # JPEG, PNG, WEBP, BMP or TIFF
    width: int  # as stored, before orientation
    height: int
    picture: bytes  # the file without its metadata
    orientation: int = 1  # as in EXIF, 1 to 8; 1 where it is missing or damaged
    animated: bool = False  # whether the file contains more than one picture


def read_header(data: bytes) -> Header | None:
    """Parse the header of a whole image file; return None if the first bytes belong to no supported format.

    The codes of the ImageError are image_truncated, image_corrupt and image_mode_not_supported.
    """
    for format_name, (signature, parse) in _PARSERS.items():
        if re.match(signature, data, re.DOTALL):
            try:
                return parse(data)
            except (struct.error, IndexError) as error:  # a fixed field lies beyond the end
                raise truncated(format_name, data) from error
    return None


def _parse_jpeg(data: bytes) -> Header:
    size, orientation, parts, scan_start = None, 1, [data[:2]], 0
    for marker, start, content in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
            if size is not None:  # Pillow would use the first and libjpeg the second
                raise corrupt("JPEG", "it gives its size twice")
            depth, height, width = struct.unpack_from(">BHH", content, 4)
            if depth != 8:
                raise unsupported("JPEG", f"{depth} bits per sample")
            size = width, height
        elif marker == _JPEG_EXIF and content[4:10] == b"Exif\0\0" and orientation == 1:
            orientation = exif_orientation(content[4:])
        elif marker == _JPEG_SCAN:
            scan_start = start
        if marker not in _JPEG_METADATA:
            parts.append(content)
    if size is None:
        raise corrupt("JPEG", "its pixels come before its size")
    end = data.find(b"\xff\xd9", scan_start)  # a second picture or a video may follow
    if data.count(b"\xff\xda", scan_start, end if end >= 0 else len(data)) > MAX_SCANS:
        raise corrupt("JPEG", f"it is spread over more than {MAX_SCANS} scans")
    return Header("JPEG", *size, b"".join([*parts, data[scan_start:]]), orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, start and content of the segments of a JPEG file up to its first scan, which is the last one.

    The content includes the marker and the length, and is empty for the scan.
    """
    position = 2
    for _ in range(MAX_PARTS):
        position = _next_jpeg_marker(data, position)
        marker = data[position + 1]
        if marker == _JPEG_SCAN:
            yield marker, position, b""
            return
        if marker in _JPEG_WITHOUT_LENGTH:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        content = data[position : position + 2 + length]
        if marker == _JPEG_END or len(content) < length + 2:
            raise truncated("JPEG", data)
        if length < 2:
            raise corrupt("JPEG", "a segment is shorter than its own length field")
        yield marker, position, content
        position += 2 + length
    raise corrupt("JPEG", f"it has more than {MAX_PARTS:,} segments")


def _next_jpeg_marker(data: bytes, position: int) -> int:
    """Return the position of the next marker; like libjpeg, skip junk and padding between segments."""
    position = data.find(b"\xff", position)
    while position >= 0 and data[position + 1] == 0xFF:
        position += 1
    if position < 0:
        raise truncated("JPEG", data)
    return position


def _parse_png(data: bytes) -> Header:
    orientation, animated, parts, names = 1, False, [data[:8]], set[bytes]()
    for name, start, end in _png_chunks(data):
        content = memoryview(data)[start + 8 : end - 4]
        if (name == b"IHDR" and len(content) == 13) == bool(names):
            raise corrupt("PNG", "it does not give its size once and first")
        if name == _PNG_PIXELS or (name in _PNG_UNIQUE and name not in names):
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if checksum != zlib.crc32(memoryview(data)[start + 4 : end - 4]):
                raise corrupt("PNG", f"the checksum of its {name.decode()} chunk is wrong")
            parts.append(data[start:end])
        elif name == b"acTL":
            animated = len(content) >= 4 and int.from_bytes(content[:4], "big") > 1  # the number of frames
        elif name == b"eXIf":
            orientation = exif_orientation(bytes(content))
        names.add(name)
    if _PNG_PIXELS not in names:
        raise corrupt("PNG", "it contains no pixels")
    width, height = struct.unpack_from(">II", data, 16)
    return Header("PNG", width, height, b"".join(parts), orientation, animated)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the chunks of a PNG file, from the length field to the end of the checksum."""
    start = 8
    for _ in range(MAX_PARTS):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if not name.isalpha():
            raise corrupt("PNG", "a chunk has no valid name")
        if end > len(data):
            raise truncated("PNG", data)
        yield name, start, end
        if name == _PNG_END:
            return
        start = end
    raise corrupt("PNG", f"it has more than {MAX_PARTS:,} chunks")


def _parse_webp(data: bytes) -> Header:
    (total,) = struct.unpack_from("<I", data, 4)
    if total + 8 > len(data):
        raise truncated("WEBP", data)
    name, content = data[12:16], data[20:30]
    if name == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":  # lossy
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", content, 6))
        return Header("WEBP", width, height, data)
    if name == b"VP8L" and content[:1] == b"\x2f":  # lossless
        (bits,) = struct.unpack_from("<I", content, 1)
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, data)
    if name != b"VP8X":  # extended: with metadata or several pictures
        raise corrupt("WEBP", "it does not begin with a picture")
    width, height = (int.from_bytes(content[start : start + 3], "little") + 1 for start in (4, 7))
    orientation = _webp_orientation(data, total + 8)
    return Header("WEBP", width, height, data, orientation, animated=bool(content[0] & 0x02))


def _webp_orientation(data: bytes, end: int) -> int:
    orientation, position = 1, 12
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            break
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"EXIF":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return orientation


def _parse_bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height, data)
    if not 40 <= header_size <= 124:
        raise unsupported("BMP", f"a header of {header_size:,} bytes")
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in _BMP_UNCOMPRESSED:  # Pillow decodes run lengths in Python: many seconds for one image
        raise unsupported("BMP", f"compression method {compression}")
    return Header("BMP", width, abs(height), data)  # a negative height: stored from the top


_PARSERS: dict[str, tuple[bytes, Callable[[bytes], Header]]] = {
    "JPEG": (rb"\xff\xd8\xff", _parse_jpeg),
    "PNG": (rb"\x89PNG\r\n\x1a\n", _parse_png),
    "WEBP": (rb"RIFF....WEBP", _parse_webp),
    "BMP": (rb"BM....\0\0\0\0", _parse_bmp),
    "TIFF": (rb"II\*\0|MM\0\*", lambda data: Header("TIFF", *read_directory(data))),
}
