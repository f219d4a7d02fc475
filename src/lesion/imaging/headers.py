"""What an image file's header says, read by hand so that third-party parsers only ever see pixels.

Each reader returns the size, the EXIF orientation and the *picture*: the same file without its metadata. Text, colour
profiles, EXIF, XMP and private tags are where decoders have their bombs and warnings, and Lesion needs none of them but
the orientation. Everything here is linear in the number of bytes and decodes nothing.
"""

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from lesion.imaging import tiff
from lesion.imaging.refusals import corrupt, truncated, unsupported

MAX_PARTS = 65_536  # chunks or segments; a 20 MB PNG in chunks of 1 KB has 20,000
MAX_SCANS = 100  # each scan of a progressive JPEG walks over the whole picture; real ones have about 10

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x00, 0x01}  # markers without a length
_JPEG_DROPPED = (frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE}) | {0xFE}  # keeps JFIF and Adobe: they name the colours


class Header(NamedTuple):
    """What the first bytes promise.

    Attributes:
        format: ``JPEG``, ``PNG``, ``WEBP``, ``BMP`` or ``TIFF``.
        width: Columns as stored, before orientation.
        height: Rows as stored, before orientation.
        orientation: EXIF orientation, 1 to 8; 1 where there is none or it cannot be read.
        animated: Whether there is more than one picture to see.
        picture: The file without its metadata.
    """

    format: str
    width: int
    height: int
    orientation: int
    animated: bool
    picture: bytes


def read_header(data: bytes) -> Header | None:
    """Read the header of a file of a supported format.

    Args:
        data: The whole file.

    Returns:
        The header, or None where the first bytes belong to no supported format.

    Raises:
        ImageError: image_truncated, image_corrupt or image_mode_not_supported.
    """
    for kind, accepts, reader in _READERS:
        if accepts(data):
            try:
                return reader(data)
            except (struct.error, IndexError) as error:  # a fixed field lies beyond the end
                raise truncated(kind, data) from error
    return None


def exif_orientation(exif: bytes) -> int:
    """Orientation of an EXIF block, 1 where it is absent or damaged: bad metadata must not cost the picture."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for position in range(start + 2, start + 2 + 12 * min(count, 512), 12):
            tag, kind, number, value = struct.unpack_from(order + "HHIH", exif, position)
            if (tag, kind, number) == (tiff.ORIENTATION, tiff.SHORT, 1):
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


def _jpeg(data: bytes) -> Header:
    position, size, orientation, kept = 2, None, 1, [b"\xff\xd8"]
    for _ in range(MAX_PARTS):
        position = _next_marker(data, position)
        marker = data[position + 1]
        if marker == 0xDA:
            break
        if marker in _JPEG_BARE:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position : position + 2 + length]
        if marker == 0xD9 or len(segment) < length + 2:
            raise truncated("JPEG", data)
        if length < 2:
            raise corrupt("JPEG", "a segment is shorter than its own length field")
        if marker in _JPEG_FRAMES:
            if size is not None:  # Pillow would believe the one and libjpeg the other
                raise corrupt("JPEG", "it gives its size twice")
            depth, height, width = struct.unpack_from(">BHH", segment, 4)
            if depth != 8:
                raise unsupported("JPEG", f"{depth} bits a sample")
            size = width, height
        elif marker == 0xE1 and segment[4:10] == b"Exif\0\0" and orientation == 1:
            orientation = exif_orientation(segment[4:])
        if marker not in _JPEG_DROPPED:
            kept.append(segment)
        position += 2 + length
    else:
        raise corrupt("JPEG", f"it has more than {MAX_PARTS:,} segments")
    if size is None:
        raise corrupt("JPEG", "its pixels come before its size")
    end = data.find(b"\xff\xd9", position)  # a second picture or a film may follow
    if data.count(b"\xff\xda", position, end if end >= 0 else len(data)) > MAX_SCANS:
        raise corrupt("JPEG", f"it is spread over more than {MAX_SCANS} scans")
    return Header("JPEG", *size, orientation, False, b"".join([*kept, data[position:]]))


def _next_marker(data: bytes, position: int) -> int:
    """Position of the next marker; libjpeg skips junk and padding between segments as well."""
    position = data.find(b"\xff", position)
    while position >= 0 and data[position + 1] == 0xFF:
        position += 1
    if position < 0:
        raise truncated("JPEG", data)
    return position


def _png(data: bytes) -> Header:
    position, orientation, animated, kept, seen = 8, 1, False, [data[:8]], set[bytes]()
    for _ in range(MAX_PARTS):
        length, name = struct.unpack_from(">I4s", data, position)
        body, end = position + 8, position + 12 + length
        if not name.isalpha():
            raise corrupt("PNG", "a chunk has no valid name")
        if end > len(data):
            raise truncated("PNG", data)
        if (name == b"IHDR" and length == 13) == bool(seen):
            raise corrupt("PNG", "it does not give its size once and first")
        if name == b"IDAT" or (name in {b"IHDR", b"PLTE", b"tRNS", b"IEND"} and name not in seen):
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if checksum != zlib.crc32(memoryview(data)[position + 4 : end - 4]):
                raise corrupt("PNG", f"the checksum of its {name.decode()} chunk is wrong")
            kept.append(data[position:end])
        elif name == b"acTL":
            animated = length >= 4 and struct.unpack_from(">I", data, body)[0] > 1
        elif name == b"eXIf":
            orientation = exif_orientation(data[body : end - 4])
        seen.add(name)
        position = end
        if name == b"IEND":
            break
    else:
        raise corrupt("PNG", f"it has more than {MAX_PARTS:,} chunks")
    if b"IDAT" not in seen:
        raise corrupt("PNG", "it holds no pixels")
    width, height = struct.unpack_from(">II", data, 16)
    return Header("PNG", width, height, orientation, animated, b"".join(kept))


def _webp(data: bytes) -> Header:
    (total,) = struct.unpack_from("<I", data, 4)
    if total + 8 > len(data):
        raise truncated("WEBP", data)
    name, first = data[12:16], data[20:30]
    if name == b"VP8 " and first[3:6] == b"\x9d\x01\x2a":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", first, 6))
        return Header("WEBP", width, height, 1, False, data)
    if name == b"VP8L" and first[:1] == b"\x2f":
        (bits,) = struct.unpack_from("<I", first, 1)
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1, False, data)
    if name != b"VP8X":
        raise corrupt("WEBP", "it does not begin with a picture")
    width = int.from_bytes(first[4:7], "little") + 1
    height = int.from_bytes(first[7:10], "little") + 1
    orientation, position = 1, 12
    for _ in range(MAX_PARTS):
        if position + 8 > total + 8:
            break
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"EXIF":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return Header("WEBP", width, height, orientation, bool(first[0] & 0x02), data)


def _bmp(data: bytes) -> Header:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height, 1, False, data)
    if not 40 <= header <= 124:
        raise unsupported("BMP", f"a header of {header:,} bytes")
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (0, 3):  # Pillow decodes run lengths in Python: many seconds of one core for one image
        raise unsupported("BMP", f"compression method {compression}")
    return Header("BMP", width, abs(height), 1, False, data)


def _tiff(data: bytes) -> Header:
    return Header("TIFF", *tiff.read_directory(data))


_READERS: tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes], Header]], ...] = (
    ("JPEG", lambda data: data[:3] == b"\xff\xd8\xff", _jpeg),
    ("PNG", lambda data: data[:8] == b"\x89PNG\r\n\x1a\n", _png),
    ("WEBP", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    ("BMP", lambda data: data[:2] == b"BM" and data[6:10] == b"\0\0\0\0", _bmp),
    ("TIFF", lambda data: data[:4] in (b"II*\0", b"MM\0*"), _tiff),
)
