"""The header of WebP files."""

import struct
from collections.abc import Iterator

from lesion.imaging.formats.header import MAX_PARTS, Header
from lesion.imaging.orientation import first_orientation
from lesion.imaging.refusals import corrupt, truncated

SIGNATURE = rb"RIFF....WEBP"

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_PIXEL_BYTES = 13  # of color: what libwebp decodes, Pillow's copy of it, and Pillow's picture (4)
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of the chunk VP8X: profile, EXIF and XMP
_ANIMATION_FLAG = 0x02


def parse_webp(data: bytes) -> Header:
    """Parse the header of a WebP file and keep only the chunks that hold pixels.

    A file that ends within its metadata, or lacks the padding at its end, is complete.
    """
    struct.unpack_from("<I", data, 4)
    chunks = list(chunks_of(data))
    if not chunks:
        raise truncated("WEBP", data)
    (first, content), pixels = chunks[0], [chunk for chunk in chunks if chunk[0] in _PIXELS]
    found = dict(reversed(chunks))  # the first one of each name
    exif = found.get(b"EXIF", b"")
    orientation = first_orientation(exif=exif, xmp=found.get(b"XMP ", b""))
    if first != b"VP8X":
        width, height = _still_size(first, content)
        return Header("WEBP", width, height, file_of(chunks[:1]), orientation, exif=exif, pixel_bytes=_PIXEL_BYTES)
    width, height = (int.from_bytes(content[start : start + 3], "little") + 1 for start in (4, 7))
    frames = sum(name == b"ANMF" for name, _ in pixels)
    extended = bytes([content[0] & ~_METADATA_FLAGS]) + content[1:]
    animated = bool(content[0] & _ANIMATION_FLAG) and frames != 1
    picture = file_of([(b"VP8X", extended), *pixels])
    profile = found.get(b"ICCP", b"")
    return Header("WEBP", width, height, picture, orientation, animated, profile, exif=exif, pixel_bytes=_PIXEL_BYTES)


def chunks_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of the chunks; metadata that is cut off is left out, and cut pixels are refused."""
    end, position = min(len(data), 8 + int.from_bytes(data[4:8], "little")), 12
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            return
        name, length = struct.unpack_from("<4sI", data, position)
        content = data[position + 8 : position + 8 + length]
        if len(content) == length:
            yield name, content
        elif name in _PIXELS or name == b"VP8X":
            raise truncated("WEBP", data)
        position += 8 + length + length % 2


def file_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Return a WebP file of these chunks, each a name and its content."""
    parts = [name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in chunks]
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, parts))) + b"WEBP" + b"".join(parts)


def _still_size(name: bytes, content: bytes) -> tuple[int, int]:
    if name == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":  # lossy
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", content, 6))
        return width, height
    if name == b"VP8L" and content[:1] == b"\x2f":  # lossless
        (bits,) = struct.unpack_from("<I", content, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise corrupt("WEBP", "it does not begin with a picture")
