"""Whether the pixels of a PNG end before its last row, which Pillow shows as black instead of refusing it."""

import struct
import zlib
from collections.abc import Iterator
from math import ceil

import numpy as np
from PIL import Image

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_ADAM7 = ((8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1))
_PIECE = 2**20


def check_rows(file: bytes, picture: Image.Image) -> None:
    """Raise an EOFError if rows of a PNG are missing.

    Args:
        file: The PNG, as `lesion.imaging.formats.png.parse_png` wrote it.
        picture: What Pillow decoded. Only where its last row is 0 everywhere the pixels have to be counted.
    """
    width, height, bits, color_type, _, _, interlaced = struct.unpack_from(">IIBBBBB", file, 16)
    last_row = picture.crop((0, picture.height - 1, picture.width, picture.height))
    if not interlaced and np.asarray(last_row).any():
        return
    passes = _ADAM7 if interlaced else ((1, 1, 0, 0),)
    expected = sum(_pass_bytes(width, height, bits * _CHANNELS[color_type], *grid) for grid in passes)
    if _unpacked_bytes(file, expected) < expected:
        raise EOFError("rows are missing")


def _pass_bytes(width: int, height: int, bits: int, across: int, down: int, left: int, top: int) -> int:
    """Return the bytes of one pass: each row begins with the number of its filter (ISO 15948, 8.2)."""
    columns, rows = ceil(max(0, width - left) / across), ceil(max(0, height - top) / down)
    return rows * (1 + ceil(columns * bits / 8)) if columns else 0


def _unpacked_bytes(file: bytes, most: int) -> int:
    """Return how many bytes of pixels a PNG holds; counting ends at ``most``."""
    count, decompressor = 0, zlib.decompressobj()
    for packed in _pixel_chunks(file):
        while packed and count < most and not decompressor.eof:
            count += len(decompressor.decompress(packed, _PIECE))
            packed = decompressor.unconsumed_tail
    return count + len(decompressor.flush()) if count < most and not decompressor.eof else count


def _pixel_chunks(file: bytes) -> Iterator[bytes]:
    start = 8
    while start + 8 <= len(file):
        length, name = struct.unpack_from(">I4s", file, start)
        if name == b"IDAT":
            yield file[start + 8 : start + 8 + length]
        start += 12 + length
