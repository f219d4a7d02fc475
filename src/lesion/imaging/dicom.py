"""DICOM files with one picture, as a viewer would show them: the optional extra ``lesion[dicom]``.

Stored values go through the chain of the standard (DICOM PS3.3 C.11 and C.7.6.3): modality (rescale slope and
intercept, or table), values of interest (table, else window), presentation (MONOCHROME1 and INVERSE are turned round).
As stored values have at most 16 bits, the chain is worked out once for each possible value and then looked up. Of the
file only the elements that describe pixels are read: nothing about the patient ever enters memory as such.
"""

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.core.errors import ImageError
from lesion.imaging.headers import read_header
from lesion.imaging.pixels import to_rgb
from lesion.imaging.refusals import (
    Limits,
    check_size,
    corrupt,
    out_of_memory,
    several_pictures,
    truncated,
    unsupported,
    wrong_type,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_TAGS = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape",
)  # fmt: skip
_GREY, _YBR = ("MONOCHROME1", "MONOCHROME2"), ("YBR_FULL", "YBR_FULL_422")
_COLOURS = ("RGB", *_YBR, "YBR_ICT", "YBR_RCT")
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_JPEG, _JPEG_2000 = ("1.2.840.10008.1.2.4.50",), ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def decode(data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decode a DICOM file to RGB.

    Without a window or table, 8-bit values are shown as they are and deeper ones from the picture's lowest to its
    highest value.

    Args:
        data: The whole file, with the DICM prefix.
        limits: What to refuse before decoding.

    Returns:
        uint8 (Rows, Columns, 3).

    Raises:
        ImageError: As `lesion.imaging.decode.decode`.
    """
    try:
        dataset = _checked(data, limits)
        pixels = _pixels(dataset, data)
        if dataset.SamplesPerPixel == 1:
            shown = _shown(dataset, pixels)
            return np.repeat(shown[..., None], 3, axis=2)
        if dataset.PhotometricInterpretation in _YBR:
            return to_rgb(Image.frombuffer("YCbCr", pixels.shape[1::-1], pixels.tobytes()), "DICOM")
        return np.array(pixels, np.uint8, order="C")
    except Exception as error:  # a third-party parser on hostile bytes: the list of what it raises has no end
        raise _refusal(error, data) from error


def probe(data: bytes, limits: Limits) -> tuple[str, int, int]:
    """Check a DICOM file by its header alone.

    Args:
        data: The whole file, with the DICM prefix.
        limits: What to refuse.

    Returns:
        Mode (``L``, ``I;16`` or ``RGB``), width, height.

    Raises:
        ImageError: Every refusal of `decode` that needs no decoding.
    """
    try:
        dataset = _checked(data, limits)
    except Exception as error:
        raise _refusal(error, data) from error
    mode = "RGB" if dataset.SamplesPerPixel == 3 else "L" if dataset.BitsAllocated == 8 else "I;16"
    return mode, int(dataset.Columns), int(dataset.Rows)


def _refusal(error: Exception, data: bytes) -> ImageError:
    if isinstance(error, ImageError):
        return error
    if isinstance(error, (EOFError, struct.error)):
        return truncated("DICOM", data)
    if isinstance(error, MemoryError):
        return out_of_memory("DICOM")
    return corrupt("DICOM", "its elements or its pixel data are damaged")


def _checked(data: bytes, limits: Limits) -> "Dataset":
    """Read the elements that describe pixels, and refuse by them."""
    try:
        import pydicom
    except ImportError as error:
        raise wrong_type(
            "DICOM", "install the extra lesion[dicom] (pip install 'lesion[dicom]') or save the picture as PNG"
        ) from error
    if _DEFLATED in data:  # pydicom would inflate it whole, however large it gets
        raise unsupported("DICOM", "the deflated transfer syntax")
    dataset = pydicom.dcmread(io.BytesIO(data), specific_tags=list(_PIXEL_TAGS))
    if "Rows" not in dataset or "Columns" not in dataset:
        raise unsupported("DICOM", "no picture at all (a report, plan or waveform)")
    rows, columns, kind = int(dataset.Rows), int(dataset.Columns), str(dataset.get("PhotometricInterpretation", ""))
    check_size("DICOM", columns, rows, limits)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise several_pictures("DICOM")
    if "PixelData" not in dataset:
        raise truncated("DICOM", data)
    samples, bits = int(dataset.get("SamplesPerPixel", 1)), int(dataset.BitsAllocated)
    if (samples, kind) not in {*((1, kind) for kind in _GREY), *((3, kind) for kind in _COLOURS)}:
        raise unsupported("DICOM", f"{samples} samples a pixel of the kind {kind or 'unknown'}")
    if bits not in ((8, 16) if samples == 1 else (8,)) or not 1 <= int(dataset.BitsStored) <= bits:
        raise unsupported("DICOM", f"{bits} bits a sample")
    return dataset


def _pixels(dataset: "Dataset", data: bytes) -> NDArray[Any]:
    """Stored values, integer (Rows, Columns) or (Rows, Columns, 3), checked against lies about their size."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    if syntax in _NATIVE:
        halved = dataset.PhotometricInterpretation == "YBR_FULL_422"
        needed = rows * columns * (2 if halved else samples) * int(dataset.BitsAllocated) // 8
        if len(dataset.PixelData) < needed:
            raise truncated("DICOM", data)
    elif syntax in _JPEG or syntax in _JPEG_2000:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        if _frame_size(frame) != (columns, rows):  # else a small header could unpack a huge picture
            raise corrupt("DICOM", "its header and its compressed picture differ in size")
    else:
        raise unsupported("DICOM", f"the compression {syntax.name}")
    pixels: NDArray[Any] = pixel_array(dataset, raw=True)
    if pixels.shape != ((rows, columns) if samples == 1 else (rows, columns, 3)):
        raise corrupt("DICOM", "its header and its pixels differ in size")
    return pixels


def _frame_size(frame: bytes) -> tuple[int, int] | None:
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000's SIZ segment (ISO 15444-1 A.5.1)
        width, height, left, top = struct.unpack_from(">IIII", frame, 8)
        return width - left, height - top
    header = read_header(frame) if frame[:2] == b"\xff\xd8" else None
    return (header.width, header.height) if header else None


def _shown(dataset: "Dataset", pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The grey that a viewer shows for each stored value."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    lowest = int(np.iinfo(pixels.dtype).min)
    stored = np.arange(lowest, int(np.iinfo(pixels.dtype).max) + 1, dtype=np.int32)
    values = np.asarray(apply_modality_lut(stored, dataset), np.float64)
    if dataset.get("VOILUTSequence"):
        grey = np.asarray(apply_voi(values.astype(np.int32), dataset), np.float64)
        grey /= 2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        centre, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        grey = window(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    elif pixels.dtype.itemsize == 1 and "RescaleSlope" not in dataset and "ModalityLUTSequence" not in dataset:
        grey = (values - values[0]) / 255
    else:
        used = values[[int(pixels.min()) - lowest, int(pixels.max()) - lowest]]
        grey = (values - used.min()) / max(float(np.ptp(used)), 1e-9)
    if (dataset.PhotometricInterpretation == "MONOCHROME1") != (dataset.get("PresentationLUTShape") == "INVERSE"):
        grey = 1 - grey
    table = np.round(np.clip(np.nan_to_num(grey), 0, 1) * 255).astype(np.uint8)
    shown: NDArray[np.uint8] = table[pixels.astype(np.int32) - lowest]
    return shown


def window(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """Map values to 0 to 1 as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 define.

    Args:
        values: float64, any shape, after the modality transformation.
        centre: Window Center.
        width: Window Width; at least 1 for ``LINEAR``, above 0 otherwise.
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.

    Returns:
        float64 of the same shape, 0 (black) to 1 (white).

    Raises:
        ImageError: image_corrupt, for a width or function that the standard does not allow.
    """
    if not np.isfinite([centre, width]).all() or width < (1 if function == "LINEAR" else 1e-9):
        raise corrupt("DICOM", f"its window has a width of {width:g} around {centre:g}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    if function == "LINEAR":  # the half and the one make a window of 256 around 128 the identity on 0 to 255
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    elif function != "LINEAR_EXACT":
        raise corrupt("DICOM", f"its window function {function} does not exist")
    return np.clip((values - centre) / width + 0.5, 0, 1)
