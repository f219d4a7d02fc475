"""DICOM files made in code."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian


def dicom_file(pixels: np.ndarray | bytes, *, syntax=ExplicitVRLittleEndian, shape=None, **elements: Any) -> bytes:
    """A DICOM file of these pixels; further elements by keyword, and empty if they are None."""
    array = pixels if isinstance(pixels, np.ndarray) else np.zeros(shape, np.uint8)
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # pydicom fills it in
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=bytes(128))
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "secret-17"
    dataset.Rows, dataset.Columns = array.shape[:2]
    dataset.SamplesPerPixel = 3 if array.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if array.ndim == 3 else "MONOCHROME2"
    if array.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = array.dtype.itemsize * 8
    dataset.BitsStored = elements.get("BitsStored") or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.tobytes() if isinstance(pixels, np.ndarray) else pixels
    dataset["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
    for name, value in elements.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def without_preamble(data: bytes, *, file_information: bool = False) -> bytes:
    """The same elements as old archives have them: no preamble, no mark, and perhaps no file information either."""
    (length,) = struct.unpack_from("<I", data, 132 + 8)
    return data[132:] if file_information else data[132 + 12 + length :]


def table(entries: np.ndarray, *, first: int = 0, bits: int = 16) -> Dataset:
    """An item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 2**16, first, bits]
    item.LUTData = entries.astype("<u2").tobytes()
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item["LUTData"].VR = "OW"
    return item


def item(**elements: Any) -> Dataset:
    """A nested dataset of these elements."""
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset
