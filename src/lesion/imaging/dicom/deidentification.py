"""A copy of a DICOM file that has its picture and a short list of elements, and nothing else that came with it.

The profiles of PS3.15 annex E list what has to be removed. Private elements, texts in sequences, comments in compressed
pixels and unused bits of pixels need further rules there. Here it is the other way round: the copy is written from the
decoded pixels and from `KEPT`, each value checked for its form, so that what is not on the list cannot remain.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lesion.core.files import bytes_sha256
from lesion.imaging.dicom.elements import element_text, first_number, read_elements
from lesion.imaging.dicom.grayscale import padding_of
from lesion.imaging.dicom.lookup_tables import read_palette, read_table
from lesion.imaging.dicom.picture import refusal
from lesion.imaging.dicom.stored import StoredPixels, read_pixels
from lesion.imaging.limits import Limits

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

METHOD = "Lesion: listed elements only, pixels written again"  # LO: 64 characters
TextInPixels = Literal["yes", "possible", "no"]

# What is kept in addition to the picture: each element with the form of its value. Other values are left out.
_CODE, _NUMBERS, _NAME = r"[A-Z0-9_ ]{1,16}", r"[-+0-9.eE \\]{1,400}", r"[^\\\0-\x1f]{1,64}"
_STANDARD_UID = r"1\.2\.840\.10008(\.\d+){1,12}"
KEPT = {
    "SOPClassUID": _STANDARD_UID,
    "Modality": _CODE,
    "BodyPartExamined": _CODE,
    "Laterality": _CODE,
    "ImageLaterality": _CODE,
    "PatientPosition": _CODE,
    "ViewPosition": _CODE,
    "BurnedInAnnotation": _CODE,
    "LossyImageCompression": _CODE,
    "Manufacturer": _NAME,
    "ManufacturerModelName": _NAME,
    "InstanceNumber": _NUMBERS,
    "PixelSpacing": _NUMBERS,
    "ImagerPixelSpacing": _NUMBERS,
    "PixelAspectRatio": _NUMBERS,
    "SliceThickness": _NUMBERS,
    "SpacingBetweenSlices": _NUMBERS,
    "SliceLocation": _NUMBERS,
    "ImagePositionPatient": _NUMBERS,
    "ImageOrientationPatient": _NUMBERS,
}
# Replaced by a keyed hash, so that images of a series, and of a study, stay together.
REMAPPED_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
# Of the picture, what is copied as it is; pixels and tables are written again.
SHOWN = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
_SHOWN_CODES = ("VOILUTFunction", "PresentationLUTShape")
_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
_TABLES = ("ModalityLUTSequence", "VOILUTSequence")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Screens and ultrasound show names in the picture more often than not: PS3.3 C.7.6.1 has an element that says so, which
# many devices leave out.
_CAPTURES = (_SECONDARY_CAPTURE, "1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3")
_CAPTURING = ("US", "SC", "OT", "DOC")
_INFLATED_BYTES = 3  # a pixel: what every reader of deflated files accepts whose limits allow so many pixels


@dataclass(frozen=True, slots=True)
class DeidentifiedFile:
    """A DICOM file without what identifies a person, and what was found in the file before."""

    data: bytes
    patient_id: str  # of the file before: for a keyed hash, never to be stored or shown; empty if it has none
    text_in_pixels: (
        TextInPixels  # whether the file says that text is burned in; possible where it should say and does not
    )


def deidentify(data: bytes, limits: Limits, remap_uid: Callable[[str], str]) -> DeidentifiedFile:
    """Write a DICOM file again with its picture and the elements of `KEPT`.

    `lesion.imaging.decode.decode` shows both files with the same pixels. Pixels are not compressed in the copy, but the
    whole file is deflated where a reader takes it.

    Args:
        data: The whole file.
        limits: Checked before anything is decoded.
        remap_uid: Gives the UID that stands for another one.

    Raises:
        ImageError: The picture is refused, with the codes of `lesion.imaging.decode.decode`.
    """
    try:
        dataset = read_elements(data, limits, also=(*KEPT, *REMAPPED_UIDS, "PatientID"))
        pixels = read_pixels(dataset, data, limits)
        copy = _kept_elements(dataset)
        for name in REMAPPED_UIDS:
            uid = element_text(dataset, name) or (bytes_sha256(data) if name == "SOPInstanceUID" else "")
            if uid:
                setattr(copy, name, remap_uid(uid))
        _write_picture(copy, dataset, pixels)
        written = _file_of(copy)
    except Exception as error:  # a third-party parser given hostile bytes can raise anything
        raise refusal(error, data) from error
    return DeidentifiedFile(written, element_text(dataset, "PatientID"), _text_in_pixels(copy))


def read_patient_id(data: bytes, limits: Limits) -> str:
    """Return the Patient ID of a DICOM file that can be decoded; empty if it has none. It must not be stored."""
    return element_text(read_elements(data, limits, also=("PatientID",)), "PatientID")


def _kept_elements(dataset: "Dataset") -> "Dataset":
    from pydicom.dataset import Dataset

    copy = Dataset()
    for name, form in KEPT.items():
        text = element_text(dataset, name)
        if re.fullmatch(form, text):
            setattr(copy, name, text.split("\\") if "\\" in text else text)
    copy.SOPClassUID = copy.get("SOPClassUID", _SECONDARY_CAPTURE)
    copy.PatientName = copy.PatientID = ""  # of type 2 in the standard: there, and empty
    copy.PatientIdentityRemoved, copy.DeidentificationMethod = "YES", METHOD
    copy.LongitudinalTemporalInformationModified = "REMOVED"
    return copy


def _text_in_pixels(copy: "Dataset") -> TextInPixels:
    declared = copy.get("BurnedInAnnotation", "")
    if declared in ("YES", "NO"):
        return "yes" if declared == "YES" else "no"
    captured = str(copy.SOPClassUID).startswith(_CAPTURES) or copy.get("Modality", "") in _CAPTURING
    return "possible" if captured else "no"


def _write_picture(copy: "Dataset", dataset: "Dataset", pixels: StoredPixels) -> None:
    copy.Rows, copy.Columns = int(dataset.Rows), int(dataset.Columns)
    copy.SamplesPerPixel = int(dataset.SamplesPerPixel)
    interpretation = str(dataset.PhotometricInterpretation)
    if copy.SamplesPerPixel == 3:
        copy.PlanarConfiguration = 0
        interpretation = "YBR_FULL" if pixels.space.startswith("YBR_FULL") else "RGB"
    copy.PhotometricInterpretation = interpretation
    _write_display(copy, dataset, pixels)
    numbers = _plain_numbers(dataset, pixels)
    copy.BitsAllocated, copy.BitsStored = 8 * numbers.itemsize, pixels.bits
    copy.HighBit, copy.PixelRepresentation = pixels.bits - 1, int(pixels.signed)
    content = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()
    copy.PixelData = content + b"\0" * (len(content) % 2)
    copy["PixelData"].VR = "OB" if numbers.itemsize == 1 else "OW"


def _plain_numbers(dataset: "Dataset", pixels: StoredPixels) -> NDArray[Any]:
    """Return stored numbers whose bits are all of the value, which begins at the lowest bit.

    Signs go through to the highest bit. Padding that uses other bits than those of the value stays what it is, or it
    would become visible.
    """
    stored = pixels.numbers
    table = np.arange(2 ** (8 * stored.dtype.itemsize))
    values = pixels.values(table)
    plain: NDArray[Any] = (values % len(table)).astype(stored.dtype)
    if dataset.SamplesPerPixel == 1 and dataset.PhotometricInterpretation != "PALETTE COLOR":
        padding = padding_of(dataset, pixels, table)
        plain = np.where(padding, table, plain).astype(stored.dtype)
    numbers: NDArray[Any] = plain[stored]
    return numbers


def _write_display(copy: "Dataset", dataset: "Dataset", pixels: StoredPixels) -> None:
    """Copy what decides how numbers are shown: the window, the tables, the padding, the palette and the profile."""
    for name in SHOWN:
        value = first_number(dataset, name)
        if value is not None:
            setattr(copy, name, _decimal(value, dataset[name].value))
    for name in _SHOWN_CODES:
        text = str(dataset.get(name, "")).strip().upper()
        if re.fullmatch(_CODE, text):
            setattr(copy, name, text)
    for name in _PADDING:
        number = first_number(dataset, name)
        if number is not None:
            copy.add_new(name, "SS" if number < 0 else "US", int(number))
    little_endian = bool(dataset.original_encoding[1])
    for name in _TABLES:
        item = dataset[name].value[0] if name in dataset else dataset
        if item.get("LUTDescriptor") and item.get("LUTData"):
            setattr(copy, name, [_table_item(item, little_endian)])
    if copy.PhotometricInterpretation == "PALETTE COLOR":
        _write_palette(copy, *read_palette(dataset, little_endian))
    if "ICCProfile" in dataset and (copy.SamplesPerPixel == 3 or copy.PhotometricInterpretation == "PALETTE COLOR"):
        copy.ICCProfile = bytes(dataset.ICCProfile)


def _decimal(value: float, original: Any) -> str:  # noqa: ANN401 - any element's value
    """Return a number as at most 16 characters, those of the file where they are."""
    from pydicom.valuerep import format_number_as_ds

    if hasattr(original, "__len__") and not isinstance(original, str) and len(original):
        original = original[0]
    text = str(original).strip()
    return text if len(text) <= 16 and re.fullmatch(_NUMBERS, text) else str(format_number_as_ds(value))


def _table_item(item: "Dataset", little_endian: bool) -> "Dataset":
    from pydicom.dataset import Dataset

    table, copy = read_table(item, little_endian), Dataset()
    copy.add_new("LUTDescriptor", *_descriptor(len(table.entries), table.first, table.bits))
    copy.add_new("LUTData", "OW", table.entries.astype("<u2").tobytes())
    return copy


def _write_palette(copy: "Dataset", first: int, colors: NDArray[np.uint8]) -> None:
    for name, channel in zip(("Red", "Green", "Blue"), colors.T, strict=True):
        copy.add_new(f"{name}PaletteColorLookupTableDescriptor", *_descriptor(len(colors), first, 8))
        entries = channel.tobytes()
        copy.add_new(f"{name}PaletteColorLookupTableData", "OW", entries + b"\0" * (len(entries) % 2))


def _descriptor(count: int, first: int, bits: int) -> tuple[str, list[int]]:
    return "SS" if first < 0 else "US", [count % 2**16, first, bits]


def _file_of(copy: "Dataset") -> bytes:
    import pydicom
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    copy.file_meta = FileMetaDataset()
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    small = len(copy.PixelData) <= _INFLATED_BYTES * copy.Rows * copy.Columns + 1  # the length is even
    syntax = uid.DeflatedExplicitVRLittleEndian if small else uid.ExplicitVRLittleEndian
    copy.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, copy, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()
