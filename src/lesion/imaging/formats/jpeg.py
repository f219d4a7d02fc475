"""The header of JPEG files."""

import re
import struct
from collections.abc import Iterator
from math import ceil

from lesion.imaging.formats.header import MAX_PARTS, Header
from lesion.imaging.orientation import first_orientation
from lesion.imaging.refusals import corrupt, truncated, unsupported

SIGNATURE = rb"\xff\xd8\xff"
MAXSCANS = 100  # each scan of a progressive JPEG passes over the whole picture; real files have about 10
MAXSCANNED_PIXELS = 1_000_000_000  # pixels × scans: a picture of 50 million pixels may have 20 scans

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_EXIF, _ICC, SCAN, END = 0xE1, 0xE2, 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # they contain the size
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD9)) | {0x00, 0x01}
_METADATA = (frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE}) | {0xFE}  # JFIF and Adobe stay: they name the colors
EXIF_NAME, _XMP_NAME, ICC_NAME = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"


def parse_jpeg(data: bytes) -> Header:
    """Parse the header of a JPEG file and take its metadata off; a second picture or a film may follow the first."""
    frame, size, parts, scan_start = b"", None, [data[:2]], 0
    exif, xmp, profile = b"", b"", dict[int, bytes]()
    for marker, start, content in jpeg_segments(data):
        body = content[4:]
        if marker in _FRAMES:
            if size is not None:  # Pillow would use the first and libjpeg the second
                raise corrupt("JPEG", "it gives its size twice")
            frame, size = content, _frame_size(content)
        elif marker == _EXIF and body.startswith(EXIF_NAME):
            exif = exif or body
        elif marker == _EXIF and body.startswith(_XMP_NAME):
            xmp = xmp or body
        elif marker == _ICC and body.startswith(ICC_NAME):
            profile.setdefault(body[12], body[14:])
        elif marker == SCAN:
            scan_start = start
        if marker not in _METADATA:
            parts.append(content)
    if size is None:
        raise corrupt("JPEG", "its pixels come before its size")
    scans, ended = 0, False
    for marker, _, _ in jpeg_scans(data, scan_start):
        scans, ended = scans + (marker == SCAN), marker == END
        check_scans(scans, *size)
    picture = b"".join([*parts, data[scan_start:]])
    icc = b"".join(profile[number] for number in sorted(profile))
    orientation = first_orientation(exif, xmp=xmp)
    return Header(
        "JPEG",
        *size,
        picture,
        orientation,
        profile=icc,
        ended=ended,
        exif=exif,
        pixel_bytes=1 if frame[9] == 1 else 4,
        buffers=_coefficient_bytes(frame) if scans > 1 else 0,
    )


def _frame_size(content: bytes) -> tuple[int, int]:
    depth, height, width = struct.unpack_from(">BHH", content, 4)
    if depth != 8:
        raise unsupported("JPEG", f"{depth} bits per sample")
    return width, height


def _coefficient_bytes(frame: bytes) -> int:
    """Return the bytes of all coefficients, two each: a picture of several scans is held so until the last one."""
    height, width, count = struct.unpack_from(">HHB", frame, 5)
    factors = [divmod(frame[11 + 3 * index], 16) for index in range(count)]
    across, down = (max(1, *(pair[axis] for pair in factors)) for axis in (0, 1))
    return sum(2 * 64 * ceil(width * x / across / 8) * ceil(height * y / down / 8) for x, y in factors)


def check_scans(scans: int, width: int, height: int) -> None:
    """Refuse (image_corrupt) a picture whose many scans would take the decoder very long."""
    most = min(MAXSCANS, max(1, MAXSCANNED_PIXELS // max(1, width * height)))
    if scans > most:
        raise corrupt("JPEG", f"it is spread over more than {most} scans")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, start and content of the segments of a JPEG file up to its first scan, which is the last one.

    The content includes the marker and the length, and is empty for the scan.
    """
    position = 2
    for _ in range(MAX_PARTS):
        position = _next_marker(data, position)
        marker = data[position + 1]
        if marker == SCAN:
            yield marker, position, b""
            return
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        content = data[position : position + 2 + length]
        if marker == END or len(content) < length + 2:
            raise truncated("JPEG", data)
        if length < 2:
            raise corrupt("JPEG", "a segment is shorter than its own length field")
        yield marker, position, content
        position += 2 + length
    raise corrupt("JPEG", f"it has more than {MAX_PARTS:,} segments")


def jpeg_scans(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the scans and of the segments between them, from the first scan on.

    The end marker is the last one, if it is there, and not what looks like it within a segment. Another picture or a
    film may follow it.
    """
    for _ in range(MAX_PARTS):
        marker = data[position + 1] if position + 1 < len(data) else None
        if marker is None:
            return
        following = position + 2
        if marker == END:
            yield marker, position, following
            return
        if marker not in _WITHOUT_LENGTH:
            if position + 4 > len(data):
                return
            following += max(struct.unpack_from(">H", data, position + 2)[0], 2)
            if marker == SCAN:
                following = _end_of_scan(data, following)
            yield marker, position, min(following, len(data))
        position = _end_of_scan(data, following)
    raise corrupt("JPEG", f"it has more than {MAX_PARTS:,} segments")


def _end_of_scan(data: bytes, position: int) -> int:
    """Return where the next marker is that belongs to no scan: not a restart, and not a stuffed byte of its samples."""
    found = _MARKER.search(data, position)
    return found.start() if found else len(data)


def _next_marker(data: bytes, position: int) -> int:
    """Return the position of the next marker; like libjpeg, skip junk and padding between segments."""
    position = data.find(b"\xff", position)
    while position >= 0 and data[position + 1] == 0xFF:
        position += 1
    if position < 0:
        raise truncated("JPEG", data)
    return position
