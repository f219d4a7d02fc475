"""TIFF pages whose samples Pillow would cut to 8 bits or mix up: rewritten as gray pages, which it reads exactly."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.formats.sample_layout import Mode, SampleLayout
from lesion.imaging.formats.tiff_directory import (
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_LENGTHS,
    STRIPS,
    TILE_LENGTHS,
    TILE_WIDTH,
    TILES,
    WIDTH,
    Directory,
    write_file,
)

Values = Mapping[int, NDArray[np.unsignedinteger]]

_MODES: dict[int, tuple[Mode, Mode, int]] = {  # by photometric kind: without and with alpha, and the number of colors
    0: ("L", "LA", 1),
    1: ("L", "LA", 1),
    2: ("RGB", "RGBA", 3),
    5: ("CMYK", "CMYKA", 4),
}
_WHITE_IS_ZERO, _SEPARATE, _DIFFERENCES = 0, 2, 2
_PREMULTIPLIED, _ALPHA = 1, (1, 2, 999)  # values of EXTRA_SAMPLES; 999 is what Corel Draw 10 writes
_MAX_WIDTH = 2**31
_JPEG, _PREDICTED = 7, (5, 8, 32946)  # LZW and Deflate


def sample_layout(data: bytes, page: Directory) -> tuple[Values, SampleLayout | None]:
    """Return the tags that the page is written with, and the layout if it is written as gray.

    The samples of a pixel become neighbors in a gray picture that is as many times wider; planes become pictures.
    """
    samples, photometric = page.number(SAMPLES, 1), page.number(PHOTOMETRIC, 0)
    bits, separate = page.values.get(BITS, np.ones(1, np.uint16)), page.number(PLANAR, 1) == _SEPARATE and samples > 1
    extra = page.values.get(EXTRA_SAMPLES, np.zeros(1, np.uint16))
    deep = int(bits[0]) == 16 and (samples > 1 or photometric == _WHITE_IS_ZERO)
    own = deep or (int(bits[0]) in (8, 16) and (separate or int(extra[0]) == _PREMULTIPLIED))
    uniform = (bits == bits[0]).all() and (page.values.get(SAMPLE_FORMAT, np.ones(1)) == 1).all()
    usual = photometric in _MODES and uniform and page.number(COMPRESSION, 1) != _JPEG
    absurd = samples * page.number(WIDTH, 0) > _MAX_WIDTH  # refused with its size
    if not (usual and own) or absurd or samples < _MODES[photometric][2]:
        return page.values, None
    opaque, transparent, colors = _MODES[photometric]
    # Four channels of RGB without the tag: programs that forget it mean transparency.
    alpha = samples > colors and (int(extra[0]) in _ALPHA or (EXTRA_SAMPLES not in page.values and photometric == 2))
    gray = _gray(page, 1 if separate else samples, int(bits[0]))
    predicted = not separate and page.number(PREDICTOR, 1) == _DIFFERENCES and page.number(COMPRESSION, 1) in _PREDICTED
    if predicted and samples > 1:
        gray.pop(PREDICTOR)
    layout = SampleLayout(
        transparent if alpha else opaque,
        int(bits[0]),
        samples,
        premultiplied=alpha and int(extra[0]) == _PREMULTIPLIED,
        inverted=photometric == _WHITE_IS_ZERO,
        planes=_planes(data, page, gray, colors + alpha) if separate else (),
        predicted=predicted and samples > 1,
        tile_width=page.number(TILE_WIDTH, 0),
    )
    return gray, layout


def _gray(page: Directory, channels: int, bits: int) -> dict[int, NDArray[np.unsignedinteger]]:
    """Return the tags of a gray page that is ``channels`` times as wide."""
    left_out = (EXTRA_SAMPLES, SAMPLE_FORMAT)
    gray = {tag: numbers for tag, numbers in page.values.items() if tag not in left_out}
    replaced = {BITS: bits, PHOTOMETRIC: 1, SAMPLES: 1, PLANAR: 1, WIDTH: channels * page.number(WIDTH, 0)}
    if TILE_WIDTH in gray:
        replaced[TILE_WIDTH] = channels * page.number(TILE_WIDTH, 0)
    return gray | {
        tag: np.array([number], np.uint32 if number >= 2**16 else np.uint16) for tag, number in replaced.items()
    }


def _planes(data: bytes, page: Directory, gray: Values, channels: int) -> tuple[bytes, ...]:
    """Return a file for each of the first ``channels``, with the strips or tiles of that channel."""
    files, samples = [], page.number(SAMPLES, 1)
    for channel in range(channels):
        own = dict(gray)
        for tag in (STRIPS, STRIP_LENGTHS, TILES, TILE_LENGTHS):
            if tag in own:
                count = len(own[tag]) // samples
                own[tag] = own[tag][channel * count : (channel + 1) * count]
        files.append(write_file(data, page.order, own))
    return tuple(files)
