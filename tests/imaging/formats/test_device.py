import io
import struct

import numpy as np
import pytest
from PIL import Image

from lesion.data.inspection import examine
from lesion.imaging.decode import probe
from lesion.imaging.formats.device import device_name, exif_device
from tests.support.images.dicom_files import dicom_file


def picture(kind: str, make: str | None = None, model: str | None = None) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8))
    exif = Image.Exif()
    for tag, value in ((271, make), (272, model)):
        if value is not None:
            exif[tag] = value
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_camera_that_exif_names(kind: str) -> None:
    assert probe(picture(kind, "Canon", "Canon EOS 80D")).device == "Canon EOS 80D"
    assert probe(picture(kind, "Apple", "iPhone 15")).device == "Apple iPhone 15"
    assert probe(picture(kind, "ACME")).device == "ACME"
    assert examine(picture(kind)).device == ""


def test_the_scanner_that_dicom_names() -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (48, 48), dtype=np.uint16)
    assert probe(dicom_file(pixels, Manufacturer="SIEMENS ", ManufacturerModelName="Aera")).device == "SIEMENS Aera"
    assert probe(dicom_file(pixels, ManufacturerModelName="Signa HDxt")).device == "Signa HDxt"
    assert probe(dicom_file(pixels)).device == ""


def test_a_damaged_text_of_a_scanner_neither_refuses_nor_warns(recwarn: pytest.WarningsRecorder) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (48, 48), dtype=np.uint16)
    data = dicom_file(pixels, Manufacturer="SIEMENS")
    found = probe(data.replace(b"SIEMENS", b"SIE\xff\x1b\x00S"))
    assert found.device == "SIE\ufffd S"
    assert not list(recwarn)


@pytest.mark.parametrize(
    "exif",
    [b"", b"Exif\0\0", b"II*\0", b"XX*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff",
     b"MM\0*\0\0\0\x08\xff\xff" + b"\1\x0f\0\2",
     struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 271, 2, 2**31, 2**31)],
)  # fmt: skip
def test_damaged_metadata_name_no_device(exif: bytes) -> None:
    assert exif_device(exif) == ""


def test_names_are_short_and_printable() -> None:
    assert device_name("  A\tB\n", "\x00C\u202e ") == "A B C"
    assert device_name("GE", "ge Signa") == "ge Signa"
    assert device_name("x" * 500, "y" * 500) == "x" * 100
