"""Whether the strips or tiles of a TIFF page lie in its file."""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.formats.tiff_directory import (
    BITS,
    COMPRESSION,
    HEIGHT,
    PHOTOMETRIC,
    PLANAR,
    ROWS_PER_STRIP,
    SAMPLES,
    STRIP_LENGTHS,
    STRIPS,
    TILE_LENGTHS,
    TILES,
    WIDTH,
    Directory,
)
from lesion.imaging.refusals import corrupt, truncated

_UNCOMPRESSED, _SEPARATE, _YCBCR = 1, 2, 6
_MAX_ROW = 2**30  # bytes; a longer row is beyond every file and every limit


def check_places(data: bytes, page: Directory) -> bool:
    """Return whether all pixels that the size of a page demands are in the file, as far as that is known.

    A page whose pixels begin beyond the file is refused, and so is one that does not tell where they are.
    """
    offsets = page.values.get(STRIPS, page.values.get(TILES))
    if offsets is None:
        raise corrupt("TIFF", "it does not contain the place of its pixels")
    stored = page.values.get(STRIP_LENGTHS, page.values.get(TILE_LENGTHS))
    needed, ends = _needed_lengths(page, len(offsets)), offsets.astype(np.int64)
    if needed is None and stored is not None and len(stored) == len(ends):
        ends = ends + stored
    if int(ends.max()) > len(data) or int(offsets.max()) >= len(data):
        raise truncated("TIFF", data)
    return needed is None or int((ends + needed).max()) <= len(data)


def pixel_places(data: bytes, page: Directory) -> list[tuple[int, int]]:
    """Return where the strips or tiles of a page begin, and how many bytes they have, as far as that is known.

    One whose length is not known lasts until the next one, or until the end of the file.
    """
    offsets = page.values.get(STRIPS, page.values.get(TILES, np.empty(0, np.uint32))).astype(np.int64)
    stored = page.values.get(STRIP_LENGTHS, page.values.get(TILE_LENGTHS))
    needed = _needed_lengths(page, len(offsets))
    if stored is not None and len(stored) == len(offsets):
        lengths = stored.astype(np.int64) if needed is None else np.maximum(stored, needed)
    elif needed is not None:
        lengths = needed
    else:
        ends = np.append(np.sort(offsets), len(data))
        lengths = ends[np.searchsorted(ends, offsets, side="right")] - offsets
    return list(zip(offsets.tolist(), lengths.tolist(), strict=True))


def _needed_lengths(page: Directory, count: int) -> NDArray[np.int64] | None:
    """Return how many bytes each strip has without compression, whatever lengths a program has written.

    It is None for compressed pixels, for tiles, and if there are not as many strips as there should be.
    """
    plain = page.number(COMPRESSION, 1) == _UNCOMPRESSED and page.number(PHOTOMETRIC, 0) != _YCBCR
    if not plain or STRIPS not in page.values:
        return None
    samples, bits = page.number(SAMPLES, 1), page.values.get(BITS, np.ones(1, np.uint16))
    planes = samples if page.number(PLANAR, 1) == _SEPARATE else 1
    pixel_bits = int(bits.sum()) if len(bits) == samples else samples * int(bits[0])
    height = page.number(HEIGHT, 0)
    strip_rows = min(page.number(ROWS_PER_STRIP, height) or height, height)
    if not strip_rows or planes * ceil(height / strip_rows) != count:
        return None
    row, strips = min(ceil(page.number(WIDTH, 0) * pixel_bits / planes / 8), _MAX_ROW), count // planes
    lengths = np.full(count, strip_rows * row, np.int64)
    lengths[strips - 1 :: strips] = (height - (strips - 1) * strip_rows) * row  # the last one of each plane
    return lengths
