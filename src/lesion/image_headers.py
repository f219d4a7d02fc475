"""What an image file's header says, read by hand so that third-party parsers only ever see pixels.

Each reader returns the size, the EXIF orientation and the *picture*: the same file without its metadata. Text, colour
profiles, EXIF, XMP and private tags are where decoders have their bombs and warnings, and Lesion needs none of them but
the orientation. Everything here is linear in the number of bytes and decodes nothing.
"""

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from lesion.errors import ImageError

MAX_PARTS = 65_536  # chunks, segments or TIFF values; a 20 MB PNG in 1 KB chunks has 20,000
MAX_SCANS = 100  # each scan of a progressive JPEG walks over the whole picture; real ones have about 10
ORIENTATION = 274

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
_JPEG_DROPPED = (frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE}) | {0xFE}  # keeps JFIF and Adobe: they name the colours
_TIFF_SIZES = {1: 1, 3: 2, 4: 4, 5: 8, 7: 1}  # bytes of a BYTE, SHORT, LONG, RATIONAL, UNDEFINED
_TIFF_SCALARS = frozenset({256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332})
_TIFF_ARRAYS = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 531, 532})
_TIFF_CODECS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}  # none, CCITT, LZW, JPEG, Deflate, PackBits
_TIFF_FLOAT, _TIFF_MAX_TILE = 3, 2**26


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


def truncated(kind: str, data: bytes) -> ImageError:
    """The refusal of a file that ends too early."""
    return ImageError(
        f"The {kind} image of {len(data):,} bytes ends before its picture does, so part of it was lost in copying or "
        "uploading; send the whole file again.",
        code="image_truncated",
    )


def corrupt(kind: str, why: str) -> ImageError:
    """The refusal of a file that contradicts itself."""
    return ImageError(
        f"The {kind} image cannot be decoded because {why}; open it in an image viewer and save it again.",
        code="image_corrupt",
    )


def unsupported(kind: str, what: str) -> ImageError:
    """The refusal of a pixel layout or compression outside the list."""
    return ImageError(
        f"The {kind} image uses {what}, which is not supported; save it as an 8-bit RGB or greyscale PNG or JPEG.",
        code="image_mode_not_supported",
    )


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


def _exif_orientation(exif: bytes) -> int:
    """Orientation of an EXIF block, 1 where it is absent or damaged: bad metadata must not cost the picture."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for position in range(start + 2, start + 2 + 12 * min(count, 512), 12):
            tag, kind, number, value = struct.unpack_from(order + "HHIH", exif, position)
            if (tag, kind, number) == (ORIENTATION, 3, 1):
                return _checked_orientation(value)
    except (KeyError, struct.error):
        pass
    return 1


def _checked_orientation(value: int) -> int:
    return value if 1 <= value <= 8 else 1


def _jpeg(data: bytes) -> Header:
    position, size, orientation, kept = 2, None, 1, [b"\xff\xd8"]
    for _ in range(MAX_PARTS):
        position = data.find(b"\xff", position)  # libjpeg skips junk between segments as well
        while position >= 0 and data[position + 1] == 0xFF:
            position += 1
        if position < 0:
            raise truncated("JPEG", data)
        marker = data[position + 1]
        if marker == 0 or marker in _JPEG_BARE:
            position += 2
            continue
        if marker == 0xD9:
            raise truncated("JPEG", data)
        if marker == 0xDA:
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position : position + 2 + length]
        if length < 2:
            raise corrupt("JPEG", "a segment has a negative length")
        if len(segment) < length + 2:
            raise truncated("JPEG", data)
        if marker in _JPEG_FRAMES:
            if size is not None:
                raise corrupt("JPEG", "it describes its size twice")
            depth, height, width = struct.unpack_from(">BHH", segment, 4)
            if depth != 8:
                raise unsupported("JPEG", f"{depth} bits a sample")
            size = width, height
        elif marker == 0xE1 and segment[4:10] == b"Exif\0\0" and orientation == 1:
            orientation = _exif_orientation(segment[4:])
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


def _png(data: bytes) -> Header:
    position, orientation, animated, kept, seen = 8, 1, False, [data[:8]], set[bytes]()
    for _ in range(MAX_PARTS):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if not name.isalpha():
            raise corrupt("PNG", "a chunk has no valid name")
        if end > len(data):
            raise truncated("PNG", data)
        if not seen and (name != b"IHDR" or length != 13):
            raise corrupt("PNG", "it does not begin with its size")
        if name == b"IDAT" or (name in {b"IHDR", b"PLTE", b"tRNS", b"IEND"} and name not in seen):
            (crc,) = struct.unpack_from(">I", data, end - 4)
            if crc != zlib.crc32(memoryview(data)[position + 4 : end - 4]):
                raise corrupt("PNG", f"the checksum of its {name.decode()} part is wrong")
            kept.append(data[position:end])
        elif name == b"acTL":
            animated = struct.unpack_from(">I", data, position + 8)[0] > 1
        elif name == b"eXIf" and name not in seen:
            orientation = _exif_orientation(data[position + 8 : end - 4])
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
        if position + 8 > min(len(data), total + 8):
            break
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"EXIF":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return Header("WEBP", width, height, orientation, bool(first[0] & 0x02), data)


def _bmp(data: bytes) -> Header:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height, 1, False, data)
    if not 40 <= header <= 124:
        raise unsupported("BMP", f"a header of {header:,} bytes")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (0, 3):  # run lengths are decoded in pure Python: seconds of one core for one request
        raise unsupported("BMP", f"compression method {compression}")
    needed = abs(height) * ((width * bits + 31) // 32 * 4)
    if 0 < width and needed > len(data) and abs(height) * width <= 8 * len(data):
        raise truncated("BMP", data)
    return Header("BMP", width, abs(height), 1, False, data)


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    (following,) = struct.unpack_from(order + "I", data, start + 2 + 12 * count)
    values, kept = dict[int, tuple[int, ...]](), list[bytes]()
    for position in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, position)
        if tag == ORIENTATION and (kind, number) == (3, 1):
            values[tag] = struct.unpack_from(order + "H", data, position + 8)
        elif (tag in _TIFF_SCALARS or tag in _TIFF_ARRAYS) and tag not in values:
            values[tag] = _tiff_values(data, order, position)
            kept.append(data[position : position + 12])
    width, height = (values.get(tag, (0,))[0] for tag in (256, 257))
    _check_tiff(data, values)
    # The kept entries, in a new directory at the end: the decoder sees no other tag and no other page.
    directory = struct.pack(order + "H", len(kept)) + b"".join(
        sorted(kept, key=lambda entry: entry[:2][:: 1 if order == ">" else -1])
    )
    padding = b"\0" * (len(data) % 2)
    head = data[:4] + struct.pack(order + "I", len(data) + len(padding))
    picture = b"".join([head, data[8:], padding, directory, b"\0\0\0\0"])
    orientation = _checked_orientation(values.get(ORIENTATION, (1,))[0])
    return Header("TIFF", width, height, orientation, following != 0, picture)


def _tiff_values(data: bytes, order: str, position: int) -> tuple[int, ...]:
    """The numbers of one directory entry; those of more than 4 bytes lie elsewhere in the file."""
    tag, kind, number = struct.unpack_from(order + "HHI", data, position)
    if kind not in _TIFF_SIZES or number == 0 or (tag in _TIFF_SCALARS and (number != 1 or kind not in (3, 4))):
        raise corrupt("TIFF", f"tag {tag} has the wrong type or count")
    if number * _TIFF_SIZES[kind] > len(data):
        raise truncated("TIFF", data)
    if number > 4 * MAX_PARTS:
        raise corrupt("TIFF", f"tag {tag} has {number:,} values")
    where = position + 8
    if number * _TIFF_SIZES[kind] > 4:
        (where,) = struct.unpack_from(order + "I", data, where)
    letters = f"{order}{2 * number}I" if kind == 5 else f"{order}{number}{ {1: 'B', 3: 'H', 4: 'I', 7: 'B'}[kind] }"
    return struct.unpack_from(letters, data, where)


def _check_tiff(data: bytes, values: dict[int, tuple[int, ...]]) -> None:
    compression = values.get(259, (1,))[0]
    if compression not in _TIFF_CODECS:
        raise unsupported("TIFF", f"compression method {compression}")
    if _TIFF_FLOAT in values.get(339, ()):
        raise unsupported("TIFF", "floating-point pixels, whose range is unknown")
    if values.get(322, (1,))[0] * values.get(323, (1,))[0] > _TIFF_MAX_TILE:
        raise corrupt("TIFF", "its tiles are absurdly large")
    offsets = values.get(273) or values.get(324)
    lengths = values.get(279) or values.get(325) or ()
    if offsets is None:
        raise corrupt("TIFF", "it does not say where its pixels are")
    if max(offsets) >= len(data) or any(o + n > len(data) for o, n in zip(offsets, lengths, strict=False)):
        raise truncated("TIFF", data)


_READERS: tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes], Header]], ...] = (
    ("JPEG", lambda data: data[:3] == b"\xff\xd8\xff", _jpeg),
    ("PNG", lambda data: data[:8] == b"\x89PNG\r\n\x1a\n", _png),
    ("WEBP", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    ("BMP", lambda data: data[:2] == b"BM" and data[6:10] == b"\0\0\0\0", _bmp),
    ("TIFF", lambda data: data[:4] in (b"II*\0", b"MM\0*"), _tiff),
)
