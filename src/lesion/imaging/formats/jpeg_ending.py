"""Whether a JPEG file that lacks its end marker lacks pixels too.

Some cameras never write the marker. libjpeg fills what is missing with gray and only warns about it, which Pillow
hides, so the question is answered in two ways. The scans must bring all coefficients, and as many restart markers as
their size demands. And the rest of the last scan must not matter: the file is decoded with different endings, which
change the picture if its decoder still wanted bits.
"""

import re
import struct
from collections.abc import Iterator
from math import ceil

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # the kinds that libjpeg decodes
_RESTART_INTERVAL, _SCAN = 0xDD, 0xDA
_MAX_ZEROS = 2  # at the end that may belong to the picture; more are padding
_END = b"\xff\xd9"
_ENDINGS = (b"\0", b"\x55", b"\xaa", b"\xfe")  # they begin with each possible pair of bits; none contains a marker
_ENDING_BYTES = 512


def with_endings(picture: bytes, *, large: bool = False) -> list[bytes]:
    """Return the file with different endings; if they give the same pixels, nothing is missing.

    The list is empty if the scans themselves are incomplete. A ``large`` picture gets two endings, which may overlook
    that its very last bits are missing; decoding it more often would take too long.
    """
    stripped = picture.rstrip(b"\0")
    if len(picture) - len(stripped) > _MAX_ZEROS:
        picture = stripped + b"\0" if stripped.endswith(b"\xff") else stripped  # FF 00 stands for FF
    picture = picture.removesuffix(b"\xff")
    try:
        complete = _scans_are_complete(picture)
    except (struct.error, IndexError, KeyError, ValueError, ZeroDivisionError):
        complete = False
    if not complete:
        return []
    endings = _ENDINGS[1:3] if large else _ENDINGS
    return [picture + ending * _ENDING_BYTES + _END for ending in endings]


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the marker, the content after the length, and the end of each segment; a scan's pixels are skipped."""
    match = _MARKER.search(data, 2)
    while match:
        position = match.start()
        (length,) = struct.unpack_from(">H", data, position + 2)
        end = position + 2 + length
        yield data[position + 1], data[position + 4 : end], end
        match = _MARKER.search(data, end)


def _scans_are_complete(data: bytes) -> bool:
    """Return whether the scans give all bits of all coefficients, and the last one all its restart markers."""
    frame, interval, last = b"", 0, (b"", 0)
    missing = dict[int, list[bool]]()  # by component: for each of 64 coefficients, whether its lowest bit is missing
    for marker, content, end in _segments(data):
        if marker in _FRAMES:
            frame = content
            missing = {content[6 + 3 * index]: [True] * 64 for index in range(content[5])}
        elif marker == _RESTART_INTERVAL:
            (interval,) = struct.unpack_from(">H", content)
        elif marker == _SCAN:
            count, last = content[0], (content, end)
            first, final, bits = content[1 + 2 * count : 4 + 2 * count]
            for index in range(count):
                for coefficient in range(first, final + 1):
                    missing[content[1 + 2 * index]][coefficient] = bits & 15 != 0
    restarts = len(_RESTART.findall(data, last[1]))
    enough = not interval or restarts >= ceil(_units(frame, last[0]) / interval) - 1
    return bool(missing) and not any(map(any, missing.values())) and enough


def _units(frame: bytes, scan: bytes) -> int:
    """Return the number of coding units of a scan (ITU-T T.81, A.2)."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    factors = {frame[6 + 3 * index]: divmod(frame[7 + 3 * index], 16) for index in range(frame[5])}
    across, down = (max(pair[axis] for pair in factors.values()) for axis in (0, 1))
    if scan[0] > 1:
        return ceil(width / (8 * across)) * ceil(height / (8 * down))
    own_across, own_down = factors[scan[1]]
    return ceil(ceil(width * own_across / across) / 8) * ceil(ceil(height * own_down / down) / 8)
