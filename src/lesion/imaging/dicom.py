"""DICOM files with one picture, as a viewer shows them: the optional extra ``lesion[dicom]``.

Stored values go through the transformations of the standard (DICOM PS3.3 C.11 and C.7.6.3): modality (rescale slope and
intercept, or a table), values of interest (a table, otherwise a window), presentation (MONOCHROME1 and INVERSE are
inverted). Since stored values have at most 16 bits, these are computed once for each possible value and then looked up.
Only the elements that describe pixels are read from the file: facts about the patient are never parsed.
"""

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.core.errors import ImageError
from lesion.imaging.headers import read_header
from lesion.imaging.limits import Limits, check_size
from lesion.imaging.pixels import to_rgb
from lesion.imaging.refusals import corrupt, out_of_memory, several_pictures, truncated, unsupported, wrong_type

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_TAGS = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape",
)  # fmt: skip
_YBR = ("YBR_FULL", "YBR_FULL_422")
_INTERPRETATIONS = {1: ("MONOCHROME1", "MONOCHROME2"), 3: ("RGB", *_YBR, "YBR_ICT", "YBR_RCT")}  # by samples per pixel
_BITS = {1: (8, 16), 3: (8,)}
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")  # baseline, and two of 2000
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def decode(data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decode a whole file with the DICM prefix to RGB, uint8 (Rows, Columns, 3); refuse what `decode.decode` refuses.

    Without a window or table, 8-bit values stay as they are, and deeper ones are scaled from the picture's lowest value
    to its highest.
    """
    try:
        dataset = _read_dataset(data, limits)
        pixels = _stored_pixels(dataset, data)
        if dataset.SamplesPerPixel == 1:
            return np.repeat(_grayscale(dataset, pixels)[..., None], 3, axis=2)
        if dataset.PhotometricInterpretation in _YBR:
            return to_rgb(Image.frombuffer("YCbCr", pixels.shape[1::-1], pixels.tobytes()), "DICOM")
        return np.array(pixels, np.uint8, order="C")
    except Exception as error:  # a third-party parser given hostile bytes can raise anything
        raise _refusal(error, data) from error


def probe(data: bytes, limits: Limits) -> tuple[str, int, int]:
    """Check a whole file with the DICM prefix by its header alone; return its mode, its width and its height.

    The mode is ``L``, ``I;16`` or ``RGB``. Every refusal of `decode` that needs no decoding is raised.
    """
    try:
        dataset = _read_dataset(data, limits)
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


def _read_dataset(data: bytes, limits: Limits) -> "Dataset":
    """Read the elements that describe pixels, and check them."""
    try:
        import pydicom
    except ImportError as error:
        raise wrong_type(
            "DICOM", "install the extra lesion[dicom] (pip install 'lesion[dicom]') or save the picture as PNG"
        ) from error
    if _DEFLATED in data:  # pydicom would decompress the whole file, however large it becomes
        raise unsupported("DICOM", "the deflated transfer syntax")
    dataset = pydicom.dcmread(io.BytesIO(data), specific_tags=list(_PIXEL_TAGS))
    if "Rows" not in dataset or "Columns" not in dataset:
        raise unsupported("DICOM", "no picture at all (a report, plan or waveform)")
    check_size("DICOM", int(dataset.Columns), int(dataset.Rows), limits)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise several_pictures("DICOM")
    if "PixelData" not in dataset:
        raise truncated("DICOM", data)
    samples, bits = int(dataset.get("SamplesPerPixel", 1)), int(dataset.BitsAllocated)
    interpretation = str(dataset.get("PhotometricInterpretation", ""))
    if interpretation not in _INTERPRETATIONS.get(samples, ()):
        raise unsupported("DICOM", f"{samples} samples per pixel of the kind {interpretation or 'unknown'}")
    if bits not in _BITS[samples] or not 1 <= int(dataset.BitsStored) <= bits:
        raise unsupported("DICOM", f"{bits} bits per sample")
    return dataset


def _stored_pixels(dataset: "Dataset", data: bytes) -> NDArray[Any]:
    """Return the stored integers (Rows, Columns) or (Rows, Columns, 3), if their number agrees with the header."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    if syntax in _UNCOMPRESSED:
        stored_samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else samples
        if len(dataset.PixelData) < rows * columns * stored_samples * int(dataset.BitsAllocated) // 8:
            raise truncated("DICOM", data)
    elif syntax in _JPEG:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        if _frame_size(frame) != (columns, rows):  # otherwise a small header could hide a huge picture
            raise corrupt("DICOM", "its header and its compressed picture differ in size")
    else:
        raise unsupported("DICOM", f"the compression {syntax.name}")
    pixels: NDArray[Any] = pixel_array(dataset, raw=True)
    if pixels.shape != ((rows, columns) if samples == 1 else (rows, columns, 3)):
        raise corrupt("DICOM", "its header and its pixels differ in size")
    return pixels


def _frame_size(frame: bytes) -> tuple[int, int] | None:
    if frame[:4] == b"\xff\x4f\xff\x51":  # the SIZ segment of JPEG 2000 (ISO 15444-1 A.5.1)
        width, height, left, top = struct.unpack_from(">IIII", frame, 8)
        return width - left, height - top
    header = read_header(frame) if frame[:2] == b"\xff\xd8" else None
    return (header.width, header.height) if header else None


def _grayscale(dataset: "Dataset", pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the shade of gray, 0 to 255, that a viewer shows for each stored value."""
    lowest = int(np.iinfo(pixels.dtype).min)
    shades = _shades(dataset, pixels, np.arange(lowest, int(np.iinfo(pixels.dtype).max) + 1, dtype=np.int32))
    if (dataset.PhotometricInterpretation == "MONOCHROME1") != (dataset.get("PresentationLUTShape") == "INVERSE"):
        shades = 1 - shades
    table = np.round(np.clip(np.nan_to_num(shades), 0, 1) * 255).astype(np.uint8)
    gray: NDArray[np.uint8] = table[pixels.astype(np.int32) - lowest]
    return gray


def _shades(dataset: "Dataset", pixels: NDArray[Any], stored: NDArray[np.int32]) -> NDArray[np.float64]:
    """Map each possible stored value to about 0 (black) to 1 (white), before the presentation."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values: NDArray[np.float64] = np.asarray(apply_modality_lut(stored, dataset), np.float64)
    black, white = values[[int(pixels.min()) - int(stored[0]), int(pixels.max()) - int(stored[0])]].tolist()
    if dataset.get("VOILUTSequence"):
        values = np.asarray(apply_voi(values.astype(np.int32), dataset), np.float64)
        black, white = 0.0, 2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        center, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        return window(values, center, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    elif pixels.dtype.itemsize == 1 and "RescaleSlope" not in dataset and "ModalityLUTSequence" not in dataset:
        black, white = float(values[0]), float(values[0]) + 255
    shades: NDArray[np.float64] = (values - min(black, white)) / max(abs(white - black), 1e-9)
    return shades


def window(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
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
