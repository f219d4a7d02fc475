"""Color DICOM as RGB: colors stored as they are, as brightness and color differences, or by a palette."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.imaging.color_profiles import to_srgb
from lesion.imaging.dicom.lookup_tables import read_palette
from lesion.imaging.dicom.stored import StoredPixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_BAND_PIXELS = 2**20


def to_rgb(dataset: "Dataset", pixels: StoredPixels) -> NDArray[np.uint8]:
    """Return colors of any depth as sRGB, uint8 (rows, columns, 3); of more than 8 bits the upper 8 are kept."""
    from pydicom.pixels.processing import convert_color_space

    rgb: NDArray[np.uint8] = np.empty(pixels.numbers.shape, np.uint8)
    rows = max(1, _BAND_PIXELS // rgb.shape[1])  # the conversion of colors needs 12 bytes per number
    for top in range(0, len(rgb), rows):
        values = (pixels.numbers[top : top + rows] >> pixels.low_bit) & (2**pixels.bits - 1)
        if pixels.bits > 8:
            values = values >> (pixels.bits - 8)
        elif pixels.bits < 8:
            values = values * 255 // (2**pixels.bits - 1)
        band = np.array(values, np.uint8, order="C")
        is_ybr = pixels.space.startswith("YBR_FULL")
        rgb[top : top + rows] = convert_color_space(band, "YBR_FULL", "RGB") if is_ybr else band
    return _in_srgb(dataset, rgb)


def palette_to_rgb(dataset: "Dataset", pixels: StoredPixels) -> NDArray[np.uint8]:
    """Return the color that the palette has for each stored number, as sRGB, uint8 (rows, columns, 3)."""
    first, colors = read_palette(dataset, bool(dataset.original_encoding[1]))
    numbers: NDArray[Any] = np.arange(2 ** (8 * pixels.numbers.dtype.itemsize))
    table = _in_srgb(dataset, colors[None])[0][np.clip(pixels.values(numbers) - first, 0, len(colors) - 1)]
    rgb: NDArray[np.uint8] = table[pixels.numbers]
    return rgb


def _in_srgb(dataset: "Dataset", rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert colors, uint8 (rows, columns, 3), from the file's color profile."""
    if "ICCProfile" not in dataset:
        return rgb
    return np.array(to_srgb(Image.fromarray(rgb), bytes(dataset.ICCProfile)))
