"""Grayscale DICOM as a viewer shows it: modality, values of interest, presentation (PS3.3 C.11, PS3.4 N.2).

A stored number has at most 16 bits, so that the gray of each possible one is computed once and then looked up.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.dicom.elements import first_number
from lesion.imaging.dicom.lookup_tables import LookupTable, read_table
from lesion.imaging.dicom.stored import StoredPixels
from lesion.imaging.refusals import corrupt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PLAIN_BITS = 8  # pixels of no more bits use their whole range, from black to white
_MIDDLE = 0.99  # the share of a picture's pixels whose range decides which others are outliers
_MARGIN = 0.1  # of this range: values farther outside are outliers, such as hot pixels
_BAND_PIXELS = 2**22

Values = NDArray[np.float64]


def to_gray(dataset: "Dataset", pixels: StoredPixels) -> NDArray[np.uint8]:
    """Return the gray, 0 to 255 in uint8 (rows, columns), that a viewer shows for each stored number.

    Without a window or table, pixels of up to 8 bits are shown from the lowest value that they may have to the highest,
    and deeper ones from the lowest to the highest value in the picture that is no outlier. Declared padding is black,
    and takes no part in this.
    """
    numbers = np.arange(2 ** (8 * pixels.numbers.dtype.itemsize))
    padding = padding_of(dataset, pixels, numbers)
    values = _modality(dataset, pixels.values(numbers))
    shades = _values_of_interest(dataset, values)
    if shades is None:
        black, white = float(values.min()), float(values.max())
        if pixels.bits > _PLAIN_BITS:
            counts = _counts(pixels.numbers, len(numbers))
            counts = np.where(padding, 0, counts) if counts[~padding].any() else counts
            black, white = ordinary_range(values, counts)
        shades = (values - black) / max(white - black, 1e-9)
    shape = str(dataset.get("PresentationLUTShape", "")).strip().upper()
    if dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE":  # both say the same
        shades = 1 - shades
    table = np.round(np.clip(np.nan_to_num(shades), 0, 1) * 255).astype(np.uint8)
    table[padding] = 0
    gray: NDArray[np.uint8] = table[pixels.numbers]
    return gray


def ordinary_range(values: Values, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the lowest and the highest value without outliers; ``counts`` has how often each value occurs.

    The middle 99 % of all pixels span a range. What lies farther than a tenth of it outside is an outlier.
    """
    order = np.argsort(values[counts > 0], kind="stable")
    present, occurrences = values[counts > 0][order], counts[counts > 0][order]
    ranks = np.cumsum(occurrences)
    edge = (1 - _MIDDLE) / 2 * ranks[-1]
    low, high = present[np.searchsorted(ranks, edge)], present[np.searchsorted(ranks, ranks[-1] - edge)]
    if low == high:  # nearly all pixels have one value, so that the others are the picture
        return float(present[0]), float(present[-1])
    margin = _MARGIN * (high - low)
    ordinary = present[(present >= low - margin) & (present <= high + margin)]
    return float(ordinary[0]), float(ordinary[-1])


def window(values: Values, center: float, width: float, function: str) -> Values:
    """Map values to 0 (black) to 1 (white) as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 define.

    The values, after the modality transformation, may have any shape. The width is at least 1 for ``LINEAR``, above 0
    for ``LINEAR_EXACT`` and ``SIGMOID``; another width or function is refused (image_corrupt).
    """
    if not np.isfinite([center, width]).all() or width < (1 if function == "LINEAR" else 1e-9):
        raise corrupt("DICOM", f"its window has a width of {width:g} around {center:g}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR":  # with 0.5 and 1 subtracted, a window of 256 around 128 is the identity on 0 to 255
        center, width = center - 0.5, max(width - 1, 1e-9)
    elif function != "LINEAR_EXACT":
        raise corrupt("DICOM", f"its window function {function} does not exist")
    return np.clip((values - center) / width + 0.5, 0, 1)


def _modality(dataset: "Dataset", values: NDArray[np.int32]) -> Values:
    """Return values in the unit of the device, such as Hounsfield units; the table goes before slope and intercept."""
    if table := _table(dataset, "ModalityLUTSequence"):
        return table.look_up(values)
    slope, intercept = (first_number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None or slope == 0:  # one without the other says nothing
        return values.astype(np.float64)
    if not np.isfinite([slope, intercept]).all():
        raise corrupt("DICOM", f"its rescaling has a slope of {slope:g} and an intercept of {intercept:g}")
    return values.astype(np.float64) * slope + intercept


def _values_of_interest(dataset: "Dataset", values: Values) -> Values | None:
    """Return 0 (black) to 1 (white) by the first table, otherwise by the first window, otherwise None."""
    if table := _table(dataset, "VOILUTSequence"):
        return table.look_up(values) / table.highest
    center, width = (first_number(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        return None
    return window(values, center, width, str(dataset.get("VOILUTFunction", "LINEAR")).strip().upper())


def _table(dataset: "Dataset", name: str) -> LookupTable | None:
    """Return the first table of a sequence, unless there is no sequence or its item is empty."""
    if name not in dataset:
        return None
    item = dataset[name].value[0]
    if not item.get("LUTDescriptor") or not item.get("LUTData"):
        return None
    return read_table(item, bool(dataset.original_encoding[1]))


def padding_of(dataset: "Dataset", pixels: StoredPixels, numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which stored numbers fill up what was not imaged (PS3.3 C.7.5.1.1.2).

    The padding may use bits that are not part of a value, and its sign may have been lost in writing.
    """
    padding, limit = (first_number(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if padding is None:
        return np.zeros(numbers.shape, bool)
    size, sign = len(numbers), 2**15 if pixels.signed else 0
    whole = np.where(pixels.signed & (numbers >= size // 2), numbers - size, numbers)
    ends = [padding, padding if limit is None else limit]
    low, high = sorted((end + sign) % 2**16 - sign for end in ends)  # their elements have 16 bits
    values = pixels.values(numbers)
    declared: NDArray[np.bool_] = ((values >= low) & (values <= high)) | ((whole >= low) & (whole <= high))
    return declared


def _counts(numbers: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Return how often each of ``size`` numbers occurs; in bands of pixels, which bounds the memory."""
    flat, counts = numbers.reshape(-1), np.zeros(size, np.int64)
    for start in range(0, flat.size, _BAND_PIXELS):
        counts += np.bincount(flat[start : start + _BAND_PIXELS], minlength=size)
    return counts
