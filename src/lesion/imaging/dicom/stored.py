"""The numbers that a DICOM file stores for its pixels, whatever their compression."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.dicom.codecs import Stream, codec_bytes, decode_rle, decode_stream, join_fragments, read_stream
from lesion.imaging.dicom.elements import DEFLATED
from lesion.imaging.limits import RGB_BYTES, Limits, check_memory
from lesion.imaging.refusals import corrupt, several_pictures, truncated, unsupported

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_RLE = "1.2.840.10008.1.2.5"
_FIRST_ITEM = b"\xfe\xff\x00\xe0"
_MAX_BITS = 16


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """Stored numbers, and which of their bits are the pixel's value (PS3.5 8.1)."""

    numbers: NDArray[Any]  # uint8 or uint16, (rows, columns) or (rows, columns, 3)
    low_bit: int  # the lowest bit of a value; bits below and above the value may hold overlays
    bits: int  # of a value, 1 to 16
    signed: bool
    space: str  # the photometric interpretation of the numbers

    def values(self, numbers: NDArray[Any]) -> NDArray[np.int32]:
        """Return the values in stored numbers of any shape."""
        values: NDArray[np.int32] = (numbers.astype(np.int32) >> self.low_bit) & (2**self.bits - 1)
        if self.signed:
            values -= values >> (self.bits - 1) << self.bits
        return values


def find_stream(dataset: "Dataset", data: bytes, limits: Limits) -> Stream | None:
    """Find the compressed picture in the elements of the file ``data``, and check its header.

    Return None for pixels that are not compressed, whose number is checked instead. Both are refused where decoding
    them takes more memory than the limits allow.
    """
    stream = _stream(dataset, data)
    samples, bits = int(dataset.SamplesPerPixel), int(dataset.BitsAllocated) if stream is None else stream.bits
    numbers = samples * -(-bits // 8)
    pixel_bytes = numbers + (RGB_BYTES if samples == 3 else 1 + RGB_BYTES)
    if stream is None:  # a copy of what is in the file or, if it is deflated, was in it
        pixel_bytes += numbers
        if dataset.file_meta.TransferSyntaxUID == DEFLATED:
            pixel_bytes += numbers
    else:
        pixel_bytes = max(pixel_bytes, numbers + codec_bytes(stream))
    check_memory("DICOM", int(dataset.Rows) * int(dataset.Columns) * pixel_bytes, limits)
    return stream


def _stream(dataset: "Dataset", data: bytes) -> Stream | None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if not dataset["PixelData"].is_undefined_length and syntax in _NATIVE:
        if len(dataset.PixelData) < _native_bytes(dataset):
            raise truncated("DICOM", data)
        if len(dataset.PixelData) >= 2 * _native_bytes(dataset):  # the number of frames is missing or wrong
            raise several_pictures("DICOM")
        return None
    if not dataset.PixelData.startswith(_FIRST_ITEM):
        raise corrupt("DICOM", f"its pixels are not wrapped as the transfer syntax {syntax.name} demands")
    frame = join_fragments(dataset.PixelData, one_each=syntax == _RLE)
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    if syntax == _RLE:
        return Stream("RLE", columns, rows, samples, int(dataset.BitsAllocated), None, frame)
    stream = read_stream(frame)
    if stream is None:
        raise unsupported("DICOM", f"the compression {syntax.name}")
    if (stream.width, stream.height, stream.samples) != (columns, rows, samples):
        raise corrupt(
            "DICOM",
            f"its header describes {columns} × {rows} pixels of {samples} samples and its compressed picture "
            f"{stream.width} × {stream.height} of {stream.samples}",
        )
    if stream.bits > _MAX_BITS:
        raise unsupported("DICOM", f"{stream.bits} bits per sample")
    return stream


def read_pixels(dataset: "Dataset", data: bytes, limits: Limits) -> StoredPixels:
    """Read the pixels in the elements of the file ``data``, and decompress them, in as much memory as is allowed."""
    stream = find_stream(dataset, data, limits)
    if stream is None:
        return _native(dataset)
    if stream.kind == "RLE":
        return _with_bits(dataset, decode_rle(stream))
    return _compressed(dataset, stream)


def _native_bytes(dataset: "Dataset") -> int:
    """Return how many bytes pixels need that are not compressed; set the right one of two kinds of color difference."""
    pixels, bits = int(dataset.Rows) * int(dataset.Columns), int(dataset.BitsAllocated)
    whole = -(-pixels * int(dataset.SamplesPerPixel) * bits // 8)
    if dataset.PhotometricInterpretation != "YBR_FULL_422":
        return whole
    if len(dataset.PixelData) < whole:
        return pixels * 2 * bits // 8
    dataset.PhotometricInterpretation = "YBR_FULL"  # there is a difference for each pixel after all
    return whole


def _native(dataset: "Dataset") -> StoredPixels:
    from pydicom.pixels.utils import pixel_array

    length = _native_bytes(dataset)
    dataset.PixelData = dataset.PixelData[: length + length % 2]
    numbers = pixel_array(dataset, raw=True, correct_unused_bits=False, allow_excess_frames=False)
    numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    return _with_bits(dataset, numbers.view(f"u{numbers.dtype.itemsize}"))


def _with_bits(dataset: "Dataset", numbers: NDArray[Any]) -> StoredPixels:
    """Describe numbers whose bits are as the elements of the file say."""
    bits = int(dataset.BitsStored)
    low_bit, signed = int(dataset.HighBit) + 1 - bits, bool(dataset.PixelRepresentation)
    return StoredPixels(numbers, low_bit, bits, signed and bits > 1, str(dataset.PhotometricInterpretation))


def _compressed(dataset: "Dataset", stream: Stream) -> StoredPixels:
    interpretation = str(dataset.PhotometricInterpretation)
    space = stream.space or ("YBR_FULL" if interpretation.startswith("YBR_FULL") else "RGB")
    numbers = decode_stream(stream, space)
    shape = (stream.height, stream.width) if stream.samples == 1 else (stream.height, stream.width, stream.samples)
    if numbers.shape != shape and numbers.shape == (stream.samples, stream.height, stream.width):  # plane by plane
        numbers = numbers.transpose(1, 2, 0)
    if numbers.shape != shape:
        raise corrupt("DICOM", "its header and its pixels differ in size")
    signed = bool(dataset.PixelRepresentation) and stream.bits > 1
    numbers = np.ascontiguousarray(numbers).view(f"u{numbers.dtype.itemsize}")
    return StoredPixels(numbers, 0, stream.bits, signed, space if stream.samples == 3 else interpretation)
