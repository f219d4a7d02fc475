"""How many parts a JPEG 2000 stream cuts its picture into: tiles, precincts and code-blocks (ISO 15444-1, annex A).

OpenJPEG makes all of them before it decodes, with some 600 bytes each: a stream of some hundred bytes could fill
gigabytes.
"""

import struct
from collections.abc import Iterator
from math import ceil, prod

from lesion.imaging.formats.header import MAX_PARTS
from lesion.imaging.refusals import corrupt

MAX_J2K_PARTS = 2**18  # color of 20 megapixels in code-blocks of 32 × 32 has a third of it
_TILE_PARTS = 16  # what a tile counts for, besides its own parts
_STYLE, _COMPONENT_STYLE, _TILE_PART, _DATA = 0xFF52, 0xFF53, 0xFF90, 0xFF93
_MAX_LEVELS = 32
_WHOLE = 15  # the exponent of a precinct's sides where a stream gives none


def check_j2k_parts(stream: bytes) -> None:
    """Refuse (image_corrupt) a stream with absurdly many parts; one that ends too early is a struct.error."""
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">IIIIII", stream, 8)
    (samples,) = struct.unpack_from(">H", stream, 40)
    columns, rows = width - left, height - top
    if min(tile_width, tile_height, columns, rows) < 1:
        raise corrupt("DICOM", "its compressed picture has no size")
    tiles = ceil(columns / tile_width) * ceil(rows / tile_height)
    side = min(columns, tile_width), min(rows, tile_height)
    most = max((_parts(style, *side) for style in _styles(stream, samples)), default=0)
    if (parts := tiles * (_TILE_PARTS + samples * most)) > MAX_J2K_PARTS:
        raise corrupt("DICOM", f"its compressed picture is cut into {parts:,} parts, more than {MAX_J2K_PARTS:,}")


def _parts(style: bytes, width: int, height: int) -> int:
    """Return the precincts and code-blocks of one component of a tile; ``style`` begins with the number of levels."""
    levels = min(style[0], _MAX_LEVELS)
    block = [2 + style[1] % 16, 2 + style[2] % 16]  # exponents of its sides
    total = 0
    for resolution in range(levels + 1):
        precinct = style[5 + resolution] if len(style) > 5 + resolution else _WHOLE * 17
        exponents: tuple[int, ...] = (precinct % 16, precinct >> 4)
        sides = [ceil(side / 2 ** (levels - resolution)) for side in (width, height)]
        precincts = _pieces(sides, exponents)
        if resolution:  # three bands of half the size, which share the precincts
            sides, exponents = [ceil(side / 2) for side in sides], tuple(max(0, each - 1) for each in exponents)
        blocks = _pieces(sides, tuple(map(min, block, exponents)))
        total += (3 if resolution else 1) * (precincts + max(blocks, precincts))
    return total


def _pieces(sides: list[int], exponents: tuple[int, ...]) -> int:
    return prod(ceil(side / (1 << exponent)) for side, exponent in zip(sides, exponents, strict=True))


def _styles(stream: bytes, samples: int) -> Iterator[bytes]:
    """Yield each description of the parts: for all components or one, of the whole picture or of a tile."""
    position, following = 2, 0
    for _ in range(MAX_PARTS):
        if position + 4 > len(stream):
            return
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker == _DATA and following > position:
            position = following
            continue
        content = stream[position + 4 : position + 2 + length]
        if marker == _TILE_PART:
            (size,) = struct.unpack_from(">I", content, 2)
            following = position + size if size else len(stream)
        elif marker >> 8 != 0xFF or length < 2:
            return
        elif marker == _STYLE:
            yield content[5:]
        elif marker == _COMPONENT_STYLE:
            yield content[2 if samples < 257 else 3 :]
        position += 2 + length
    raise corrupt("DICOM", f"its compressed picture has more than {MAX_PARTS:,} segments")
