"""Image files without their metadata: places, names, dates, serial numbers, comments, thumbnails.

The compressed picture stays byte for byte. What changes how it is shown stays as well (orientation and color profile),
and so does the device that took it. A file that has nothing else is returned as it is.
"""

import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from lesion.imaging.formats import jpeg, png, tiff_directory, webp
from lesion.imaging.formats.device import exif_device
from lesion.imaging.formats.header import Header
from lesion.imaging.formats.tiff import full_pages
from lesion.imaging.formats.tiff_directory import MODEL, ORIENTATION, PROFILE, Directory
from lesion.imaging.formats.tiff_places import pixel_places
from lesion.imaging.headers import read_header
from lesion.imaging.refusals import truncated

_APP0, _APP1, _APP2, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_JFIF_BYTES, _ADOBE_BYTES = 18, 16  # of these segments, without the thumbnail of the first one
_ICC_BYTES = 65_519  # of a profile in one segment
_PNG_KEPT = frozenset({  # what no text, time or program's own data can be in
    b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT", b"bKGD", b"pHYs",
})  # fmt: skip
_TIFF_KEPT = frozenset({254, 255, ORIENTATION, 271, MODEL, 282, 283, 296, 297, PROFILE})  # beside the pixels' own tags
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}  # of TIFF's types
_EXIF_FLAG, _ALPHA_FLAG, _PROFILE_FLAG = 0x08, 0x10, 0x20  # of WebP's chunk VP8X


def without_metadata(data: bytes) -> bytes:
    """Return an image file whose header can be read without its metadata; files of other formats as they are.

    Raises:
        ImageError: The header is damaged, with the codes of `lesion.imaging.headers.read_header`.
    """
    header = read_header(data)
    if header is None or header.format not in _WRITERS:
        return data
    try:
        return _WRITERS[header.format](data, header)
    except (struct.error, IndexError) as error:
        raise truncated(header.format, data) from error


def _short_exif(header: Header) -> bytes:
    """Return a block of EXIF data with orientation and device only; empty if the file tells neither."""
    model = exif_device(header.exif).encode()
    entries = []
    if model:
        model += b"\0"
        entries.append((MODEL, 2, len(model), model))
    if header.orientation != 1:
        entries.append((ORIENTATION, 3, 1, struct.pack("<H", header.orientation)))
    if not entries:
        return b""
    place, written, texts = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, number, value in entries:
        body = value.ljust(4, b"\0")
        if len(value) > 4:
            body, texts = struct.pack("<I", place + len(texts)), texts + value
        written += struct.pack("<HHI", tag, kind, number) + body
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + written + bytes(4) + texts


# JPEG


def _jpeg(data: bytes, header: Header) -> bytes:
    first, others, scan_start = [data[:2]], list[bytes](), 0
    for marker, start, content in jpeg.jpeg_segments(data):
        if marker == jpeg.SCAN:
            scan_start = start
        elif marker == _APP0 and content[4:9] == b"JFIF\0" and len(first) == 1:
            first.append(_cut(content, _JFIF_BYTES)[:-2] + bytes(2))
        elif marker == _ADOBE and content[4:9] == b"Adobe":
            others.append(_cut(content, _ADOBE_BYTES))
        elif not _is_metadata(marker):
            others.append(content)
    exif = _short_exif(header)
    beside = [_segment(_APP1, jpeg.EXIF_NAME + exif)] if exif else []
    blocks = [header.profile[start : start + _ICC_BYTES] for start in range(0, len(header.profile), _ICC_BYTES)]
    for number, block in enumerate(blocks, start=1):
        beside.append(_segment(_APP2, jpeg.ICC_NAME + bytes([number, len(blocks)]) + block))
    scans = [data[scan_start:]]
    if header.ended:
        scans = [
            data[start:end] for marker, start, end in jpeg.jpeg_scans(data, scan_start) if not _is_metadata(marker)
        ]
    return b"".join([*first, *beside, *others, *scans])


def _cut(content: bytes, length: int) -> bytes:
    """Return the beginning of a segment, of a length that includes marker and length."""
    body = content[4:length].ljust(length - 4, b"\0")
    return content[:2] + struct.pack(">H", len(body) + 2) + body


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _is_metadata(marker: int) -> bool:
    return _APP0 <= marker <= 0xEF or marker == _COMMENT


# PNG and WebP


def _png(data: bytes, header: Header) -> bytes:
    exif, kept = _short_exif(header), [data[:8]]
    chunks = list(png.chunks(data))
    has_profile = any(name == b"iCCP" for name, _ in chunks)
    for name, content in chunks:
        if name in _PNG_KEPT:
            kept.append(png.chunk(name, content))
        if name == b"IHDR":
            kept += [png.chunk(b"eXIf", exif)] if exif else []
            if header.profile and not has_profile:  # it was in a text
                kept.append(png.chunk(b"iCCP", b"icc\0\0" + zlib.compress(header.profile)))
    if chunks[-1][0] != b"IEND":
        kept.append(png.chunk(b"IEND", b""))
    return b"".join(kept)


def _webp(data: bytes, header: Header) -> bytes:
    exif, picture = _short_exif(header), list(webp.chunks_of(header.picture))
    if picture[0][0] != b"VP8X":
        if not exif:
            return header.picture
        sides = (header.width - 1).to_bytes(3, "little") + (header.height - 1).to_bytes(3, "little")
        has_alpha = picture[0][0] == b"VP8L" and bool(picture[0][1][4] & 0x10)
        picture.insert(0, (b"VP8X", bytes([_ALPHA_FLAG * has_alpha, 0, 0, 0]) + sides))
    flags = picture[0][1][0] | (_EXIF_FLAG if exif else 0) | (_PROFILE_FLAG if header.profile else 0)
    extended = [(b"VP8X", bytes([flags]) + picture[0][1][1:])]
    profile = [(b"ICCP", header.profile)] if header.profile else []
    return webp.file_of([*extended, *profile, *picture[1:], *([(b"EXIF", exif)] if exif else [])])


# TIFF


def _tiff(data: bytes, header: Header) -> bytes:
    """Blank all bytes of the file that are not pixels of its picture, and write one directory at its end."""
    order, place = tiff_directory.first_place(data)
    page = full_pages(data)[0]
    pixels = _only_pixels(data, page)
    if not page.following and not page.below and _has_nothing_else(data, pixels, page, place):
        return data
    values, model = dict(page.values), exif_device(data).encode() + b"\0"
    if header.orientation != 1:
        values[ORIENTATION] = np.array([header.orientation], np.uint16)
    if header.profile:
        values[PROFILE] = np.frombuffer(header.profile, np.uint8)
    if len(model) > 1:
        values[MODEL] = np.frombuffer(model, np.uint8)
    return tiff_directory.write_file(bytes(pixels), order, values)


def _only_pixels(data: bytes, page: Directory) -> bytearray:
    kept = bytearray(len(data))
    kept[:4] = data[:4]
    done = 4
    for start, length in sorted(pixel_places(data, page)):  # they may overlap, thousands of times
        end = min(start + length, len(data))
        start = max(start, done)
        if end > start:
            kept[start:end] = data[start:end]
            done = end
    return kept


def _has_nothing_else(data: bytes, pixels: bytearray, page: Directory, place: int) -> bool:
    """Return whether a file has only pixels and a directory of known tags; other bytes are 0."""
    known, positions, tags = bytearray(pixels), tiff_directory.entries(data, page.order, place), set[int]()
    known[4:8], known[place : positions.stop + 4] = data[4:8], data[place : positions.stop + 4]
    for position in positions:
        tag, kind, number, start = struct.unpack_from(page.order + "HHII", data, position)
        if tag in tags or not (tag in _TIFF_KEPT or tag in page.values):
            return False
        tags.add(tag)
        length = number * _VALUE_BYTES.get(kind, 0)
        if length > 4:
            known[start : start + length] = data[start : start + length]
    return bytes(known) == data


_WRITERS: Mapping[str, Callable[[bytes, Header], bytes]] = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff}
