"""Reads the elements of a DICOM file that describe pixels, and checks them before any pixel is decoded.

Facts about the patient are never parsed. An element without a value counts as missing: the standard allows most of them
to be empty.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from lesion.core.errors import ImageError
from lesion.imaging.dicom.bounded_reading import BoundedFile, Bounds, check_kinds, read_nested
from lesion.imaging.limits import Limits, check_memory, check_size
from lesion.imaging.refusals import (
    ImageTooLargeError,
    corrupt,
    several_pictures,
    truncated,
    unsupported,
    wrong_type,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

_COLORS = ("Red", "Green", "Blue")
_FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # the second one wins
_FRAME_PARTS = {  # of these groups, what changes how a frame is shown (PS3.3 C.7.6.16)
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
_DEVICE = ("Manufacturer", "ManufacturerModelName")
_TAGS = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ICCProfile",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", *_FRAME_GROUPS,
    *(f"{color}PaletteColorLookupTableDescriptor" for color in _COLORS),
    *(f"{kind}{color}PaletteColorLookupTableData" for kind in ("", "Segmented") for color in _COLORS),
)  # fmt: skip
_LONG = {
    "PixelData": 2**32,
    "FloatPixelData": 2**32,
    "DoubleFloatPixelData": 2**32,
    "ICCProfile": 2**23,
    "LUTData": 2**18,
}
_PALETTE_BYTES = 2**20  # of a channel; an expanded one of 65,536 entries has an eighth of it
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_INTERPRETATIONS = {1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 3: ("RGB", *_YBR)}  # by samples per pixel
_BITS = {1: (1, 8, 16), 3: (8, 16)}  # allocated, by samples per pixel
DEFLATED = "1.2.840.10008.1.2.1.99"
_META_BYTES = 4096  # the transfer syntax is among the first elements
_OTHER_BYTES = 2**22  # of a deflated file, all that is not pixels


def read_elements(data: bytes, limits: Limits, also: Sequence[str] = _DEVICE) -> "Dataset":
    """Read and check the elements of a whole file that describe its picture, and find ``also`` others.

    The others are left as they are in the file: `element_text` reads them.

    The result has no empty elements, a transfer syntax in its ``file_meta``, what the frame's functional groups say
    among its own elements, and the defaults of the standard for missing numbers. One frame of at most
    ``limits.max_pixels`` is in it, with 1 or 3 samples per pixel of 1, 8 or 16 bits.
    """
    try:
        import imagecodecs  # noqa: F401  # part of the same extra
        import pydicom
    except ImportError as error:
        raise wrong_type(
            "DICOM", "install the extra lesion[dicom] (pip install 'lesion[dicom]') or save the picture as PNG"
        ) from error
    inflated = _inflate(data, limits)
    bounds = _bounds()
    source = BoundedFile(data if inflated is None else inflated, bounds)
    dataset = pydicom.dcmread(source, force=True, specific_tags=[*_TAGS, *also])
    check_kinds(dataset, bounds)
    if (first_number(dataset, "NumberOfFrames") or 1) <= 1:  # the sequences of the others may be long
        read_nested(dataset, bounds)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(*dataset.original_encoding)
    _drop_empty(dataset, also)
    _take_from_frame(dataset)
    _check_picture(dataset, data, limits)
    _fill_in(dataset)
    return dataset


def device_texts(dataset: "Dataset") -> tuple[str, str]:
    """Return maker and model of the device, empty where they are missing.

    ``dataset`` comes from `read_elements` with no other elements.
    """
    maker, model = (element_text(dataset, name) for name in _DEVICE)
    return maker, model


def element_text(dataset: "Dataset", name: str) -> str:
    """Return the text of an element that was read ``also``; empty where it is missing or in no text's form.

    It is decoded here and not by pydicom, so that a damaged text neither refuses the picture nor warns.
    """
    value = getattr(dataset.get_item(name), "value", None)
    return value.decode("utf-8", "replace").strip("\0 ") if isinstance(value, bytes) else ""


def first_number(dataset: "Dataset", name: str) -> float | None:
    """Return the first value of an element as a number; None if there is no element or its first value is empty."""
    value = dataset.get(name)
    if value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)


@cache
def _bounds() -> Bounds:
    from pydicom.tag import Tag

    long = _LONG | {name: _PALETTE_BYTES for name in _TAGS if name.endswith("LookupTableData")}
    sequences = {name for name in (*_TAGS, *_FRAME_PARTS) if name.endswith("Sequence")}
    inner = (name for names in _FRAME_PARTS.values() for name in names)
    short = {*_TAGS, *inner, "LUTDescriptor"} - sequences - set(long)
    return Bounds(
        frozenset(int(Tag(name)) for name in short),
        frozenset(int(Tag(name)) for name in sequences),
        {int(Tag(name)): most for name, most in long.items()},
    )


def _inflate(data: bytes, limits: Limits) -> bytes | None:
    """Return the elements of a file with the deflated transfer syntax, and None for every other file.

    pydicom would decompress any number of bytes. Here they are limited by the pixels allowed.
    """
    from pydicom.filereader import read_dataset, read_preamble

    if DEFLATED.encode() not in data[:_META_BYTES]:
        return None
    file = BoundedFile(data, _bounds())
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, kind, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return None
    decompressor, most = zlib.decompressobj(-zlib.MAX_WBITS), 3 * limits.max_pixels + _OTHER_BYTES
    most = min(most, limits.memory)
    try:
        inflated = decompressor.decompress(memoryview(data)[file.tell() :], most)
    except zlib.error as error:
        raise corrupt("DICOM", "its deflated elements are damaged") from error
    if decompressor.eof:
        return inflated
    if len(inflated) < most:
        raise truncated("DICOM", data)
    check_memory("DICOM", most + 1, limits)
    raise ImageTooLargeError(
        f"The DICOM file inflates to more than {most:,} bytes, which is more than a picture of {limits.max_pixels:,} "
        "pixels needs; make the picture smaller."
    )


def _guessed_syntax(implicit: bool | None, little_endian: bool | None) -> "UID":
    from pydicom import uid

    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian


def _drop_empty(dataset: "Dataset", also: Sequence[str]) -> None:
    from pydicom.tag import Tag

    only_bytes = set(map(Tag, also))
    for tag in list(dataset.keys()):
        if tag in only_bytes:
            continue
        value = dataset[tag].value
        if isinstance(value, str):
            value = value.strip()
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            del dataset[tag]


def _take_from_frame(dataset: "Dataset") -> None:
    """Move the rescaling and the window of an enhanced image's only frame to where other images have them."""
    for group in _FRAME_GROUPS:
        for part, names in _FRAME_PARTS.items():
            item = dataset[group].value[0] if group in dataset else {}
            sequence = item.get(part)
            for name in names:
                if sequence and sequence[0].get(name) not in (None, ""):
                    dataset[name] = sequence[0][name]
    for group in _FRAME_GROUPS:
        dataset.pop(group, None)


def _check_picture(dataset: "Dataset", data: bytes, limits: Limits) -> None:
    """Refuse what is no single picture within the limits, or has samples that cannot be shown."""
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ImageError(
            "The DICOM file contains no picture at all; it may be a report, a plan or a waveform. Send the file of an "
            "image.",
            code="image_mode_not_supported",
        )
    check_size("DICOM", int(dataset.Columns), int(dataset.Rows), limits)
    if (first_number(dataset, "NumberOfFrames") or 1) > 1:
        raise several_pictures("DICOM")
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise unsupported("DICOM", "floating-point pixels")
    if "PixelData" not in dataset:
        raise truncated("DICOM", data)
    if "BitsAllocated" not in dataset:
        raise corrupt("DICOM", "its Bits Allocated are missing")
    samples, bits = int(dataset.get("SamplesPerPixel", 1)), int(dataset.BitsAllocated)
    interpretation = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    if interpretation not in _INTERPRETATIONS.get(samples, ()):
        raise unsupported("DICOM", f"{samples} samples per pixel of the kind {interpretation or 'unknown'}")
    stored = int(dataset.get("BitsStored", bits))
    if bits not in _BITS[samples]:
        raise unsupported("DICOM", f"{bits} bits per sample")
    if not 1 <= stored <= bits:
        raise corrupt("DICOM", f"it stores {stored} of {bits} bits per sample")
    dataset.PhotometricInterpretation = interpretation


def _fill_in(dataset: "Dataset") -> None:
    """Set the numbers that follow from others, or have a default, where they are missing or impossible."""
    dataset.NumberOfFrames = 1
    dataset.SamplesPerPixel = int(dataset.get("SamplesPerPixel", 1))
    dataset.PixelRepresentation = int(dataset.get("PixelRepresentation", 0))
    dataset.BitsStored = int(dataset.get("BitsStored", dataset.BitsAllocated))
    if not dataset.BitsStored <= int(dataset.get("HighBit", -1)) + 1 <= dataset.BitsAllocated:
        dataset.HighBit = dataset.BitsStored - 1
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = int(dataset.get("PlanarConfiguration", 0))
