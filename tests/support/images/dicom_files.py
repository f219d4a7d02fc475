"""DICOM files made in code."""

import io
import warnings

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian


def dicom_file(pixels: np.ndarray | bytes, *, syntax=ExplicitVRLittleEndian, shape=None, **elements: object) -> bytes:
    """A DICOM file of these pixels; further elements by keyword."""
    array = pixels if isinstance(pixels, np.ndarray) else np.zeros(shape, np.uint8)
    meta = FileMetaDataset()
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
    dataset.BitsAllocated = dataset.BitsStored = array.dtype.itemsize * 8
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
