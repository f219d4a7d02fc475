"""The first directory of a TIFF file: checked, and rewritten with only the tags that describe pixels."""

import struct

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.refusals import corrupt, truncated, unsupported

Values = dict[int, NDArray[np.unsignedinteger]]  # the numbers of each tag

_WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION, _SAMPLES, _STRIPS, _STRIP_LENGTHS = 256, 257, 259, 274, 277, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_LENGTHS, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_SCALARS = frozenset(
    {_WIDTH, _HEIGHT, _COMPRESSION, 262, 266, _SAMPLES, 278, 284, 292, 293, 317, _TILE_WIDTH, _TILE_HEIGHT, 332}
)
_FEW = frozenset({258, 338, _SAMPLE_FORMAT, 529, 530, 531, 532})  # about one number per channel
_MANY = frozenset({_STRIPS, _STRIP_LENGTHS, 320, _TILES, _TILE_LENGTHS, 347})  # strips, palette, JPEG tables
_CODECS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})  # none, CCITT, LZW, JPEG, Deflate, PackBits
_SHORT, _LONG = 3, 4  # types of 2 and 4 bytes
_TYPES = {1: ("u1", 1), _SHORT: ("u2", 1), _LONG: ("u4", 1), 5: ("u4", 2), 7: ("u1", 1)}  # NumPy type, numbers a value
_FLOAT = 3
_MAX_VALUES = 2**18  # Pillow turns each into a Python object
_MAX_TILE = 2**26
_MAX_SAMPLES = 6


def read_directory(data: bytes) -> tuple[int, int, bytes, int, bool]:
    """Read and rewrite the first directory of a file that begins like a classic (not Big) TIFF.

    Return the stored width and height, the rewritten file, the EXIF orientation, and whether more pages follow.

    With a few bytes, a directory can declare the whole file to be the content of 65,535 tags, and Pillow reads (and
    warns about) every tag. The rewritten file has a new directory at its end, with only the checked tags and no next
    page. A directory beyond the end is a struct.error.
    """
    order, start, count = _directory_place(data)
    end = start + 2 + 12 * count
    (next_page,) = struct.unpack_from(order + "I", data, end)
    orientation, values, entries = 1, Values(), dict[int, bytes]()
    for position in range(start + 2, end, 12):
        tag, kind, number, value = struct.unpack_from(order + "HHIH", data, position)
        if (tag, kind, number) == (_ORIENTATION, _SHORT, 1):
            orientation = _valid_orientation(value)
        elif tag in _SCALARS | _FEW | _MANY and tag not in entries:
            values[tag] = _entry_values(data, order, position)
            entries[tag] = data[position : position + 12]
    _check(data, values)
    padding = b"\0" * (len(data) % 2)
    head = data[:4] + struct.pack(order + "I", len(data) + len(padding))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    picture = b"".join([head, data[8:], padding, directory, b"\0\0\0\0"])
    return _scalar(values, _WIDTH, 0), _scalar(values, _HEIGHT, 0), picture, orientation, next_page != 0


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block, which is built like a TIFF file.

    It is 1 where it is missing or damaged: bad metadata must not make the picture unreadable.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        order, start, count = _directory_place(exif)
        for position in range(start + 2, start + 2 + 12 * min(count, 512), 12):
            tag, kind, number, value = struct.unpack_from(order + "HHIH", exif, position)
            if (tag, kind, number) == (_ORIENTATION, _SHORT, 1):
                return _valid_orientation(value)
    except (KeyError, struct.error):
        pass
    return 1


def _valid_orientation(value: int) -> int:
    return value if 1 <= value <= 8 else 1


def _directory_place(data: bytes) -> tuple[str, int, int]:
    """Return the byte order for ``struct``, the position of the first directory and its number of entries."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    return order, start, count


def _entry_values(data: bytes, order: str, position: int) -> NDArray[np.unsignedinteger]:
    """Return the numbers of one entry as a view of the file; more than 4 bytes are stored elsewhere in it."""
    tag, kind, number = struct.unpack_from(order + "HHI", data, position)
    most = 1 if tag in _SCALARS else 64 if tag in _FEW else _MAX_VALUES
    if kind not in _TYPES or not 1 <= number <= most or (tag in _SCALARS and kind not in (_SHORT, _LONG)):
        raise corrupt("TIFF", f"its tag {tag} has {number:,} values of type {kind}")
    type_name, numbers_per_value = _TYPES[kind]
    dtype, count, start = np.dtype(order + type_name), number * numbers_per_value, position + 8
    if count * dtype.itemsize > 4:
        (start,) = struct.unpack_from(order + "I", data, start)
    if start + count * dtype.itemsize > len(data):
        raise truncated("TIFF", data)
    return np.frombuffer(data, dtype, count, start)


def _scalar(values: Values, tag: int, default: int) -> int:
    return int(values[tag][0]) if tag in values else default


def _check(data: bytes, values: Values) -> None:
    compression = _scalar(values, _COMPRESSION, 1)
    if compression not in _CODECS:
        raise unsupported("TIFF", f"compression method {compression}")
    if _scalar(values, _SAMPLES, 1) > _MAX_SAMPLES:
        raise unsupported("TIFF", f"{_scalar(values, _SAMPLES, 1)} channels")
    if _FLOAT in values.get(_SAMPLE_FORMAT, ()):
        raise unsupported("TIFF", "floating-point pixels, whose range is not known")
    if _scalar(values, _TILE_WIDTH, 1) * _scalar(values, _TILE_HEIGHT, 1) > _MAX_TILE:
        raise corrupt("TIFF", "its tiles are absurdly large")
    offsets = values.get(_STRIPS, values.get(_TILES))
    lengths = values.get(_STRIP_LENGTHS, values.get(_TILE_LENGTHS))
    if offsets is None:
        raise corrupt("TIFF", "it does not contain the place of its pixels")
    ends = offsets.astype(np.int64)
    if lengths is not None and len(lengths) == len(ends):
        ends = ends + lengths
    if int(ends.max()) > len(data) or int(offsets.max()) >= len(data):
        raise truncated("TIFF", data)
