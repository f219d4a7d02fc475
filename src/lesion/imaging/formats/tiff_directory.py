"""One directory of a TIFF file: the description of one page, read and written with checked tags only."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.orientation import entry_orientation
from lesion.imaging.refusals import corrupt, truncated

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIPS, SAMPLES, ROWS_PER_STRIP, STRIP_LENGTHS, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_LENGTHS, EXTRA_SAMPLES, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339
MODEL, ORIENTATION, PROFILE = 272, 274, 34675
_OLD_SUBFILE, _SUB_DIRECTORIES, _XMP = 255, 330, 700
_SCALARS = frozenset(
    {
        WIDTH,
        HEIGHT,
        COMPRESSION,
        PHOTOMETRIC,
        266,
        SAMPLES,
        ROWS_PER_STRIP,
        PLANAR,
        292,
        293,
        PREDICTOR,
        TILE_WIDTH,
        TILE_HEIGHT,
    }
    | {332}
)
_FRACTIONS = frozenset({529, 532})  # of YCbCr
_FEW = frozenset({BITS, EXTRA_SAMPLES, SAMPLE_FORMAT, 530, 531}) | _FRACTIONS  # about one number per channel
_PLACES = frozenset({STRIPS, STRIP_LENGTHS, TILES, TILE_LENGTHS})
_MANY = _PLACES | {320, 347}  # and palette, JPEG tables
_BYTES = frozenset({_XMP, PROFILE})
_BYTE, _TEXT, _SHORT, _LONG, _FRACTION, _UNDEFINED, _PLACE = 1, 2, 3, 4, 5, 7, 13  # types
_KINDS = {1: _BYTE, 2: _SHORT, 4: _LONG}  # by bytes of a number
_DTYPES = {_BYTE: "u1", _SHORT: "u2", _LONG: "u4", _FRACTION: "u4", _UNDEFINED: "u1"}
_TABLES = 347  # of JPEG
_MAX_VALUES = 2**17
_MAX_PLACES = 2**15  # of strips or tiles; Pillow makes several Python objects of each
_MAX_BYTES = 4 * 2**20  # of a profile
_MAX_SUB_DIRECTORIES = 16
_REDUCED, _MASK = 1, 4  # bits of the tag SUBFILE


@dataclass(frozen=True, slots=True)
class Directory:
    """One page.

    Attributes:
        order: ``<`` or ``>``, the byte order.
        values: The numbers of each tag that decoding needs.
        orientation: 1 to 8, or None.
        reduced: Whether the page is a smaller copy or a mask of another one.
        below: The places of the directories that belong to this page.
        following: The place of the next page's directory; 0 after the last.
        xmp: The XMP packet, empty without one.
        profile: The ICC profile, empty without one.
    """

    order: str
    values: Mapping[int, NDArray[np.unsignedinteger]]
    orientation: int | None
    reduced: bool
    below: tuple[int, ...]
    following: int
    xmp: bytes
    profile: bytes

    def number(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        return int(self.values[tag][0]) if tag in self.values else default


def first_place(data: bytes) -> tuple[str, int]:
    """Return the byte order for ``struct`` and the place of the first directory."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    return order, struct.unpack_from(order + "I", data, 4)[0]


def entries(data: bytes, order: str, place: int) -> range:
    """Return the positions of the entries of the directory at ``place``."""
    (count,) = struct.unpack_from(order + "H", data, place)
    return range(place + 2, place + 2 + 12 * count, 12)


def read_directory(data: bytes, order: str, place: int) -> Directory:
    """Read one directory; one beyond the end of the file is a struct.error."""
    orientation, reduced, positions = None, False, entries(data, order, place)
    values, texts = dict[int, NDArray[np.unsignedinteger]](), dict[int, bytes]()
    below: tuple[int, ...] = ()
    for position in positions:
        tag, kind, number, value = struct.unpack_from(order + "HHII", data, position)
        if kind == _SHORT:
            (value,) = struct.unpack_from(order + "H", data, position + 8)
        if tag == SUBFILE and kind in (_SHORT, _LONG):
            reduced = bool(value & (_REDUCED | _MASK))
        elif tag == _OLD_SUBFILE and kind in (_SHORT, _LONG):
            reduced = reduced or value == 2
        elif tag == _SUB_DIRECTORIES and kind in (_LONG, _PLACE) and 1 <= number <= _MAX_SUB_DIRECTORIES:
            below = struct.unpack_from(f"{order}{number}I", data, position + 8 if number == 1 else value)
        elif tag in _BYTES:
            texts.setdefault(tag, _bytes(data, order, position))
        elif tag in _SCALARS | _FEW | _MANY and tag not in values:
            values[tag] = _values(data, order, position)
        orientation = orientation or entry_orientation(data, order, position)
    (following,) = struct.unpack_from(order + "I", data, positions.stop)
    xmp, profile = texts.get(_XMP, b""), texts.get(PROFILE, b"")
    return Directory(order, values, orientation, reduced, below, following, xmp, profile)


def write_file(data: bytes, order: str, values: Mapping[int, NDArray[np.unsignedinteger]]) -> bytes:
    """Return the file with one new directory at its end, of these tags and without a next page.

    With a few bytes, a directory can declare the whole file to be the content of 65,535 tags, and Pillow reads (and
    warns about) every tag; the written one has only the checked tags.
    """
    parts, length, written = [data[8:], b"\0" * (len(data) % 2)], len(data) + len(data) % 2, b""
    for tag in sorted(values):
        kind = _TEXT if tag == MODEL else _UNDEFINED if tag in (_TABLES, PROFILE) else _KINDS[values[tag].itemsize]
        kind, number = (_FRACTION, len(values[tag]) // 2) if tag in _FRACTIONS else (kind, len(values[tag]))
        body = values[tag].astype(f"{order}u{values[tag].dtype.itemsize}").tobytes()
        if len(body) > 4:
            body += b"\0" * (len(body) % 2)
            parts.append(body)
            body, length = struct.pack(order + "I", length), length + len(body)
        written += struct.pack(order + "HHI", tag, kind, number) + body.ljust(4, b"\0")
    head = data[:4] + struct.pack(order + "I", length)
    return b"".join([head, *parts, struct.pack(order + "H", len(values)), written, b"\0\0\0\0"])


def _values(data: bytes, order: str, position: int) -> NDArray[np.unsignedinteger]:
    """Return the numbers of one entry as a view of the file; more than 4 bytes are stored elsewhere in it."""
    tag, kind, number = struct.unpack_from(order + "HHI", data, position)
    most = 1 if tag in _SCALARS else 64 if tag in _FEW else _MAX_PLACES if tag in _PLACES else _MAX_VALUES
    kinds = (
        (_SHORT, _LONG)
        if tag in _SCALARS
        else (_FRACTION,)
        if tag in _FRACTIONS
        else (_BYTE, _SHORT, _LONG, _UNDEFINED)
    )
    if tag in _PLACES and number > most:
        raise corrupt("TIFF", f"it has {number:,} strips or tiles, more than {most:,}")
    if kind not in kinds or not 1 <= number <= most:
        raise corrupt("TIFF", f"its tag {tag} has {number:,} values of type {kind}")
    dtype, start = np.dtype(order + _DTYPES[kind]), position + 8
    count = 2 * number if kind == _FRACTION else number
    if count * dtype.itemsize > 4:
        (start,) = struct.unpack_from(order + "I", data, start)
    if start + count * dtype.itemsize > len(data):
        raise truncated("TIFF", data)
    return np.frombuffer(data, dtype, count, start)


def _bytes(data: bytes, order: str, position: int) -> bytes:
    """Return the bytes of an entry, empty where they are damaged: bad metadata must not make a picture unreadable."""
    _, kind, number, start = struct.unpack_from(order + "HHII", data, position)
    fine = kind in (_BYTE, _UNDEFINED) and 4 < number <= _MAX_BYTES and start + number <= len(data)
    return data[start : start + number] if fine else b""
