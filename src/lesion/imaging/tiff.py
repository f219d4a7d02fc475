"""The first directory of a TIFF file, checked and rewritten with the tags that describe pixels alone."""

import struct

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.refusals import corrupt, truncated, unsupported

ORIENTATION, SHORT = 274, 3

_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _STRIPS, _STRIP_LENGTHS = 256, 257, 259, 277, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_LENGTHS, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_SCALARS = frozenset(
    {_WIDTH, _HEIGHT, _COMPRESSION, 262, 266, _SAMPLES, 278, 284, 292, 293, 317, _TILE_WIDTH, _TILE_HEIGHT, 332}
)
_FEW = frozenset({258, 338, _SAMPLE_FORMAT, 529, 530, 531, 532})  # a number a channel or so
_MANY = frozenset({_STRIPS, _STRIP_LENGTHS, 320, _TILES, _TILE_LENGTHS, 347})  # strips, palette, JPEG tables
_CODECS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})  # none, CCITT, LZW, JPEG, Deflate, PackBits
_TYPES = {1: ("u1", 1), 3: ("u2", 1), 4: ("u4", 1), 5: ("u4", 2), 7: ("u1", 1)}  # numpy type and numbers a value
_FLOAT = 3
_MAX_VALUES = 2**18  # Pillow turns each into a Python object
_MAX_TILE = 2**26
_MAX_SAMPLES = 6


def read_directory(data: bytes) -> tuple[int, int, int, bool, bytes]:
    """Read and rewrite the first directory.

    A few bytes of a directory can name the whole file as the content of 65,535 tags, and Pillow reads (and warns
    about) every tag. The file handed on has a new directory at its end, with the checked tags and no next page.

    Args:
        data: A file that begins as a classic (not Big) TIFF.

    Returns:
        Stored width, stored height, orientation, whether there are more pages, and the rewritten file.

    Raises:
        ImageError: image_truncated, image_corrupt or image_mode_not_supported.
        struct.error: If the directory lies beyond the end.
    """
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    (following,) = struct.unpack_from(order + "I", data, start + 2 + 12 * count)
    orientation, values, entries = 1, dict[int, NDArray[np.unsignedinteger]](), dict[int, bytes]()
    for position in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, position)
        if (tag, kind, number) == (ORIENTATION, SHORT, 1):
            (value,) = struct.unpack_from(order + "H", data, position + 8)
            orientation = value if 1 <= value <= 8 else 1
        elif tag in _SCALARS | _FEW | _MANY and tag not in entries:
            values[tag] = _values(data, order, position)
            entries[tag] = data[position : position + 12]
    _check(data, values)
    padding = b"\0" * (len(data) % 2)
    head = data[:4] + struct.pack(order + "I", len(data) + len(padding))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    picture = b"".join([head, data[8:], padding, directory, b"\0\0\0\0"])
    return _scalar(values, _WIDTH, 0), _scalar(values, _HEIGHT, 0), orientation, following != 0, picture


def _values(data: bytes, order: str, position: int) -> NDArray[np.unsignedinteger]:
    """The numbers of one entry, a view of the file; those of more than 4 bytes lie elsewhere in it."""
    tag, kind, number = struct.unpack_from(order + "HHI", data, position)
    most = 1 if tag in _SCALARS else 64 if tag in _FEW else _MAX_VALUES
    if kind not in _TYPES or not 1 <= number <= most or (tag in _SCALARS and kind not in (3, 4)):
        raise corrupt("TIFF", f"its tag {tag} has {number:,} values of type {kind}")
    letters, each = _TYPES[kind]
    dtype, where = np.dtype(order + letters), position + 8
    if number * each * dtype.itemsize > 4:
        (where,) = struct.unpack_from(order + "I", data, where)
    if where + number * each * dtype.itemsize > len(data):
        raise truncated("TIFF", data)
    return np.frombuffer(data, dtype, number * each, where)


def _scalar(values: dict[int, NDArray[np.unsignedinteger]], tag: int, default: int) -> int:
    return int(values[tag][0]) if tag in values else default


def _check(data: bytes, values: dict[int, NDArray[np.unsignedinteger]]) -> None:
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
        raise corrupt("TIFF", "it does not say where its pixels are")
    ends = offsets.astype(np.int64)
    if lengths is not None and len(lengths) == len(ends):
        ends = ends + lengths
    if int(ends.max()) > len(data) or int(offsets.max()) >= len(data):
        raise truncated("TIFF", data)
