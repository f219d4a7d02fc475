"""From the bytes of a DICOM file to RGB pixels, or to facts about them."""

import struct

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import ImageError
from lesion.imaging.dicom.color import palette_to_rgb, to_rgb
from lesion.imaging.dicom.elements import device_texts, read_elements
from lesion.imaging.dicom.grayscale import to_gray
from lesion.imaging.dicom.stored import find_stream, read_pixels
from lesion.imaging.formats.device import device_name
from lesion.imaging.limits import Limits
from lesion.imaging.refusals import corrupt, out_of_memory, truncated

_DEEP_MODES = {1: "1", 8: "L", 16: "I;16"}


def decode(data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decode a whole DICOM file to RGB, uint8 (Rows, Columns, 3); refuse what `lesion.imaging.decode.decode` refuses.

    Grayscale is shown as `lesion.imaging.dicom.grayscale.to_gray` describes.
    """
    try:
        dataset = read_elements(data, limits)
        pixels = read_pixels(dataset, data, limits)
        if dataset.SamplesPerPixel == 3:
            return to_rgb(dataset, pixels)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return palette_to_rgb(dataset, pixels)
        return np.repeat(to_gray(dataset, pixels)[..., None], 3, axis=2)
    except Exception as error:  # a third-party parser given hostile bytes can raise anything
        raise refusal(error, data) from error


def probe(data: bytes, limits: Limits) -> tuple[str, int, int, str]:
    """Check a whole DICOM file by its header alone; return its mode, width, height and the device that made it.

    The mode is ``1``, ``L``, ``I;16``, ``P`` or ``RGB``. Every refusal of `decode` that needs no decoding is raised.
    """
    try:
        dataset = read_elements(data, limits)
        find_stream(dataset, data, limits)
    except Exception as error:
        raise refusal(error, data) from error
    mode = "RGB" if dataset.SamplesPerPixel == 3 else _DEEP_MODES[int(dataset.BitsAllocated)]
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        mode = "P"
    return mode, int(dataset.Columns), int(dataset.Rows), device_name(*device_texts(dataset))


def refusal(error: Exception, data: bytes) -> ImageError:
    """Return the error that a file is refused with, whatever went wrong when it was read."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, (EOFError, struct.error)):
        return truncated("DICOM", data)
    if isinstance(error, MemoryError):
        return out_of_memory("DICOM")
    return corrupt("DICOM", "its elements or its pixel data are damaged")
