"""Pillow images of any mode as RGB arrays; converted in bands of rows, which bounds the memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.imaging.refusals import unsupported

OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
MODES = OPAQUE | ALPHA | DEEP

_DEPTHS = (8, 10, 12, 14, 16)  # bits that scanners and cameras store in 16
_BAND_PIXELS = 2**22


def to_rgb(picture: Image.Image, kind: str) -> NDArray[np.uint8]:
    """Convert a loaded picture of format ``kind``, whose mode is among `MODES`; blend transparency with black.

    Return uint8 (H, W, 3), contiguous and writable. Whole numbers outside 0 to 65,535 are refused
    (image_mode_not_supported).
    """
    image = np.empty((picture.height, picture.width, 3), np.uint8)
    if picture.mode in DEEP:
        low, high = _range(picture)
        if low < 0 or high >= 2**16:
            raise unsupported(kind, f"pixel values from {low:,} to {high:,}, outside 0 to 65,535")
        table = depth_table(high)
        for rows, band in _bands(picture):
            image[rows] = table[np.asarray(band)][..., None]
        return image
    transparent = picture.mode in ALPHA or picture.has_transparency_data
    for rows, band in _bands(picture):
        image[rows] = np.asarray(_on_black(band) if transparent else band.convert("RGB"))
    return image


def depth_table(highest: int) -> NDArray[np.uint8]:
    """Return the 8-bit value of each 16-bit value, uint8 (65536,).

    They are scaled from the smallest usual depth that holds ``highest``, the largest value of the picture.
    """
    top = 2 ** next(depth for depth in _DEPTHS if highest < 2**depth) - 1
    values = np.arange(2**16, dtype=np.uint32)
    table: NDArray[np.uint8] = np.minimum((values * 255 + top // 2) // top, 255).astype(np.uint8)
    return table


def orient(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rotate and flip a stored image, uint8 (H, W, 3), upright; return it contiguous.

    The EXIF orientation is 1 to 8 (Exif 3.0, tag 274); 5 to 8 swap height and width.
    """
    if orientation in (3, 4, 6, 7):
        image = image[::-1]
    if orientation in (2, 3, 7, 8):
        image = image[:, ::-1]
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image)


def _bands(picture: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    rows = max(1, _BAND_PIXELS // picture.width)
    if rows >= picture.height:
        yield slice(None), picture
        return
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        yield slice(top, bottom), picture.crop((0, top, picture.width, bottom))


def _range(picture: Image.Image) -> tuple[int, int]:
    arrays = (np.asarray(band) for _, band in _bands(picture))
    extremes = [(int(array.min()), int(array.max())) for array in arrays]
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def _on_black(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    black = Image.new("RGB", picture.size)
    black.paste(picture, mask=picture.getchannel("A"))
    return black
