"""Pillow images of any mode as RGB arrays; converted in bands of rows, which bounds the memory."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.imaging.color_profiles import to_srgb
from lesion.imaging.orientation import REVERSED, SWAPPED, orient
from lesion.imaging.refusals import unsupported

OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
MODES = OPAQUE | ALPHA | DEEP

_DEPTHS = (8, 10, 12, 14, 16)  # bits that scanners and cameras store in 16
_TOPS = np.array([2**depth - 1 for depth in _DEPTHS])
_BAND_PIXELS = 2**18
ODD_SHARE = 0.001  # of the pixels: so many may lie above the depth in use, such as hot pixels and burnt-in marks


def rgb_bands(
    picture: Image.Image, kind: str, profile: bytes = b"", step: int = 1, orientation: int = 1
) -> Iterator[NDArray[np.uint8]]:
    """Convert a loaded picture of format ``kind``, whose mode is among `MODES`, to sRGB; blend transparency with black.

    With a ``step``, each square of so many pixels a side becomes one, their mean. Then the ``orientation`` is applied.

    A picture that is transparent everywhere is shown as if it were not: programs that know no transparency leave 0 in
    its place. Yield bands of rows from the top, uint8 (rows, W / step, 3). Whole numbers outside 0 to 65,535 are
    refused (image_mode_not_supported).
    """
    for band in _srgb_bands(picture, kind, profile, step, orientation):
        yield finish(band, step, orientation)


def finish(band: Image.Image, step: int, orientation: int) -> NDArray[np.uint8]:
    """Return a part of a picture in sRGB, reduced and upright, uint8 (rows, W, 3)."""
    return orient(np.asarray(band.reduce(step) if step > 1 else band), orientation)


def _srgb_bands(picture: Image.Image, kind: str, profile: bytes, step: int, orientation: int) -> Iterator[Image.Image]:
    if picture.mode in DEEP:
        low, high = _range(picture)
        if low < 0 or high >= 2**16:
            raise unsupported(kind, f"pixel values from {low:,} to {high:,}, outside 0 to 65,535")
        table = depth_table(highest_in_use(np.asarray(band)[..., None] for band in _bands(picture)))
        for band in _bands(picture, step, orientation):
            yield to_srgb(Image.fromarray(table[np.asarray(band)]), profile)
        return
    transparent = picture.mode in ALPHA or picture.has_transparency_data
    visible = transparent and any(_split(band)[1].getextrema() != (0, 0) for band in _bands(picture))
    for band in _bands(picture, step, orientation):
        color, alpha = _split(band) if transparent else (band, None)
        yield on_black(to_srgb(color, profile), alpha if visible else None)


def highest_in_use(bands: Iterable[NDArray[Any]]) -> int:
    """Return the highest value of the depth that a picture of up to 16 bits uses: 255, 1023, 4095, 16383 or 65535.

    It is the smallest of these that holds all pixels but one in a thousand (but at least one), so that single hot
    pixels do not make the rest dark. Where both bytes of each value are the same, 8 bits were spread over 16, and 65535
    is the highest value.

    Args:
        bands: Whole numbers from 0 to 65,535, each (rows, W, C).
    """
    above, pixels, channels, spread = np.zeros(len(_TOPS), np.int64), 0, 1, True
    for band in bands:
        above += [np.count_nonzero(band > top) for top in _TOPS]
        spread = spread and not np.any((band >> 8) != (band & 255))
        pixels, channels = pixels + band.size // band.shape[-1], band.shape[-1]
    if spread:
        return int(_TOPS[-1])
    odd = channels * max(1, int(pixels * ODD_SHARE))
    return int(_TOPS[np.argmax(above <= odd)])


def depth_table(highest: int) -> NDArray[np.uint8]:
    """Return the 8-bit value of each 16-bit value, uint8 (65536,).

    They are scaled from the smallest usual depth that holds ``highest``, the largest value of the picture; larger ones
    are white.
    """
    top = int(_TOPS[np.argmax(highest <= _TOPS)])
    values = np.arange(2**16, dtype=np.uint32)
    table: NDArray[np.uint8] = np.minimum((values * 255 + top // 2) // top, 255).astype(np.uint8)
    return table


def on_black(color: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Blend an RGB picture with black by its transparency, an 8-bit picture of the same size or None."""
    if alpha is None:
        return color
    black = Image.new("RGB", color.size)
    black.paste(color, mask=alpha)
    return black


def same_pixels(one: Image.Image, other: Image.Image) -> bool:
    """Return whether two pictures of the same size and mode are equal."""
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(_bands(one), _bands(other), strict=True))


def _split(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return the colors and the transparency of a picture that has both."""
    if picture.mode == "La":  # gray that is already blended with black
        return picture.getchannel(0), Image.new("L", picture.size, 255)
    gray = picture.mode == "LA"
    picture = picture if gray else picture.convert("RGBA")
    return picture.getchannel("L") if gray else picture.convert("RGB"), picture.getchannel("A")


def _bands(picture: Image.Image, step: int = 1, orientation: int = 1) -> Iterator[Image.Image]:
    """Yield bands of rows in the order in which they are seen with the orientation; of columns if it swaps the axes.

    All but the one at the end have a multiple of ``step`` rows or columns.
    """
    swapped = orientation in SWAPPED
    length, width = (picture.width, picture.height) if swapped else (picture.height, picture.width)
    size = step * max(1, _BAND_PIXELS // width // step)
    if size >= length:
        yield picture
        return
    starts = range(0, length, size)
    for start in reversed(starts) if orientation in REVERSED else starts:
        end = min(start + size, length)
        yield picture.crop((start, 0, end, picture.height) if swapped else (0, start, picture.width, end))


def _range(picture: Image.Image) -> tuple[int, int]:
    arrays = (np.asarray(band) for band in _bands(picture))
    extremes = [(int(array.min()), int(array.max())) for array in arrays]
    return min(low for low, _ in extremes), max(high for _, high in extremes)
