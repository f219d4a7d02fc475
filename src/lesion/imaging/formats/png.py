"""The header of PNG files."""

import struct
import zlib
from collections.abc import Iterator

from lesion.imaging.formats.header import MAX_PARTS, Header
from lesion.imaging.formats.sample_layout import Mode, SampleLayout
from lesion.imaging.orientation import first_orientation, raw_profile
from lesion.imaging.refusals import corrupt, truncated

SIGNATURE = rb"\x89PNG\r\n\x1a\n"

_PIXELS, _END = b"IDAT", b"IEND"
_UNIQUE = frozenset({b"IHDR", b"PLTE", b"tRNS", _END})  # chunks that decoding needs and that occur once
_STREAM_CHECKSUM = 4  # bytes at the end of the pixels that are not pixels
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TEXT_NAMES = frozenset({  # what is read of a text: orientation and profile, as ImageMagick and exiftool write them
    b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp", b"Raw profile type icc",
    b"Raw profile type icm", b"XML:com.adobe.xmp",
})  # fmt: skip
_MAX_UNPACKED = 4 * 2**20  # bytes of a compressed text or profile
_DEEP_MODES: dict[int, Mode] = {2: "RGB", 4: "LA", 6: "RGBA"}  # by color type; gray of 16 bits is Pillow's own


def parse_png(data: bytes) -> Header:
    """Parse the header of a PNG file and keep only the chunks that decoding needs.

    A file without the end chunk is complete if all its pixels are there, which decoding finds out.
    """
    parts, found = [data[:8]], dict[bytes, bytes]()
    for name, content in chunks(data):
        if (name == b"IHDR" and len(content) == 13) == bool(found):
            raise corrupt("PNG", "it does not give its size once and first")
        if name == _PIXELS or (name in _UNIQUE and name not in found):
            parts.append(chunk(name, content))
        if name in _TEXTS:
            keyword = bytes(content[:80]).partition(b"\0")[0]
            if keyword in _TEXT_NAMES and keyword not in found:
                found[keyword] = _text(name, bytes(content))
        else:
            found.setdefault(name, bytes(content) if name in (b"eXIf", b"iCCP", b"acTL", b"IHDR", b"tRNS") else b"")
    if _PIXELS not in found:
        raise corrupt("PNG", "it contains no pixels")
    if _END not in found:
        parts.append(chunk(_END, b""))
    width, height = struct.unpack_from(">II", found[b"IHDR"])
    frames = int.from_bytes(found.get(b"acTL", b"")[:4], "big")
    picture, orientation = b"".join(parts), _orientation(found)
    exif = found.get(b"eXIf", b"")
    layout, profile, held = _layout(found), _profile(found), _pixel_bytes(found[b"IHDR"])
    return Header(
        "PNG", width, height, picture, orientation, frames > 1, profile, exif=exif, layout=layout, pixel_bytes=held
    )


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and content of the chunks of a PNG file, whose checksums are checked where decoding needs them.

    After the first pixels the file may end anywhere, except within pixels.
    """
    start, pixels = 8, False
    for _ in range(MAX_PARTS):
        if pixels and start + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        content = memoryview(data)[start + 8 : start + 8 + length]
        if not name.isalpha() or (end > len(data) and name != _PIXELS):
            if pixels:  # what follows the last pixels is not whole, or no chunk at all
                return
            raise truncated("PNG", data) if name.isalpha() else corrupt("PNG", "a chunk has no valid name")
        if end > len(data):
            if length - len(content) > _STREAM_CHECKSUM:
                raise truncated("PNG", data)
            yield name, content
            return
        if name == _PIXELS or name in _UNIQUE:
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if checksum != zlib.crc32(content, zlib.crc32(name)):
                raise corrupt("PNG", f"the checksum of its {name.decode()} chunk is wrong")
        yield name, content
        if name == _END:
            return
        start, pixels = end, pixels or name == _PIXELS
    raise corrupt("PNG", f"it has more than {MAX_PARTS:,} chunks")


def chunk(name: bytes, content: bytes | memoryview) -> bytes:
    """Return a chunk with its length and its checksum."""
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join([struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)])


def _text(name: bytes, content: bytes) -> bytes:
    """Return what a text chunk says after its keyword; empty where it is damaged or very long."""
    text = content.partition(b"\0")[2]
    if name == b"zTXt":
        return _unpacked(text[1:])
    if name == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].partition(b"\0")[2].partition(b"\0")[2]  # after two languages
        return _unpacked(text) if packed else text
    return text


def _unpacked(packed: bytes) -> bytes:
    try:
        decompressor = zlib.decompressobj()
        content = decompressor.decompress(packed, _MAX_UNPACKED)
    except zlib.error:
        return b""
    return content if decompressor.eof else b""


def _orientation(found: dict[bytes, bytes]) -> int:
    raw = found.get(b"Raw profile type exif") or found.get(b"Raw profile type APP1", b"")
    xmp = found.get(b"XML:com.adobe.xmp") or raw_profile(found.get(b"Raw profile type xmp", b""))
    return first_orientation(found.get(b"eXIf", b""), raw, xmp or raw_profile(raw))


def _profile(found: dict[bytes, bytes]) -> bytes:
    if b"iCCP" in found:
        return _unpacked(found[b"iCCP"].partition(b"\0")[2][1:])
    return raw_profile(found.get(b"Raw profile type icc") or found.get(b"Raw profile type icm", b""))


def _pixel_bytes(size: bytes) -> int:
    """Return the bytes of one pixel while it is decoded; color of 16 bits is decoded twice, into 8 bits each."""
    bits, color_type = size[8:10]
    if color_type in (2, 6):
        return 8 if bits == 16 else 4
    return 4 if color_type == 4 else 2 if bits == 16 else 1


def _layout(found: dict[bytes, bytes]) -> SampleLayout | None:
    """Return how color or transparency of 16 bits is stored; None for what Pillow reads without a loss."""
    bits, color_type = found[b"IHDR"][8:10]
    key = found.get(b"tRNS", b"")
    if bits != 16 or (color_type == 0 and len(key) < 2):
        return None
    mode = "L" if color_type == 0 else _DEEP_MODES.get(color_type)
    if mode is None:
        return None
    colors = 1 if mode == "L" else 3
    transparent = struct.unpack(f">{colors}H", key[: 2 * colors]) if len(key) >= 2 * colors and "A" not in mode else ()
    return SampleLayout(mode, 16, len(mode), key=transparent)
