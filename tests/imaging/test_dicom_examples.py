"""The example files in pydicom's package, of scanners and many programs, against pydicom's own pipeline."""

import io
from pathlib import Path

import numpy as np
import pytest

from lesion.core.errors import ImageError
from lesion.imaging import decode
from lesion.imaging.dicom.elements import read_elements
from lesion.imaging.dicom.stored import read_pixels
from lesion.imaging.limits import Limits

pydicom = pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.pixels.utils import pixel_array  # noqa: E402

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
LIMITS = Limits(min_side=1)
COLOR = [
    "ExplVR_BigEnd",
    "SC_jpeg_no_color_transform",
    "SC_jpeg_no_color_transform_2",
    "SC_rgb_dcmtk_+eb+cr",
    "SC_rgb_dcmtk_+eb+cy+n1",
    "SC_rgb_dcmtk_+eb+cy+n2",
    "SC_rgb_dcmtk_+eb+cy+np",
    "SC_rgb_dcmtk_+eb+cy+s2",
    "SC_rgb_dcmtk_+eb+cy+s4",
    "SC_rgb_gdcm_KY",
    "SC_rgb_jpeg",
    "SC_rgb_jpeg_app14_dcmd",
    "SC_rgb_jpeg_dcmd",
    "SC_rgb_jpeg_dcmtk",
    "SC_rgb_jpeg_lossy_gdcm",
    "SC_rgb_rle",
    "SC_rgb_rle_16bit",
    "SC_rgb_small_odd",
    "SC_rgb_small_odd_big_endian",
    "SC_rgb_small_odd_jpeg",
    "SC_ybr_full_422_uncompressed",
    "examples_jpeg2k",
    "examples_palette",
    "examples_rgb_color",
]
GRAYSCALE = [
    "CT_small",
    "JPEG2000",
    "MR_small",
    "MR_small_RLE",
    "MR_small_bigendian",
    "MR_small_expb",
    "MR_small_implicit",
    "MR_small_jp2klossless",
    "MR_small_padded",
    "image_dfl",
    "examples_overlay",
    "693_J2KI",
    "J2K_pixelrep_mismatch",
    "liver_1frame",
    "liver_expb_1frame",
]
COPIES = (
    "MR_small_RLE",
    "MR_small_bigendian",
    "MR_small_implicit",
    "MR_small_jp2klossless",
    "MR_small_jpeg_ls_lossless",
)
WITHOUT_WINDOW = {"CT_small", "JPEG2000", "image_dfl", "liver_1frame", "liver_expb_1frame"}
REFUSED = {
    "MR_truncated": "image_truncated",
    "SC_rgb_rle_2frame": "image_animated",
    "examples_ybr_color": "image_animated",
    "SC_rgb_rle_32bit": "image_mode_not_supported",
    "rtdose_1frame": "image_mode_not_supported",
    "reportsi": "image_mode_not_supported",
    "waveform_ecg": "image_mode_not_supported",
    "rtplan_truncated": "image_mode_not_supported",
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def example(name: str) -> bytes:
    file = FOLDER / f"{name}.dcm"
    if not file.is_file():
        pytest.skip(f"this version of pydicom has no {file.name}")
    return file.read_bytes()


@pytest.mark.parametrize("name", COLOR)
def test_color(name: str):
    dataset = pydicom.dcmread(io.BytesIO(data := example(name)))
    expected = pixel_array(dataset)
    if dataset.SamplesPerPixel == 1:
        expected = apply_color_lut(expected, dataset)
    if expected.dtype == np.uint16:
        expected = expected >> 8
    assert np.array_equal(decode.decode(data, LIMITS), expected)


@pytest.mark.parametrize("name", GRAYSCALE)
def test_stored_values(name: str):
    data = example(name)
    pixels = read_pixels(read_elements(data, LIMITS), data, LIMITS)
    assert np.array_equal(pixels.values(pixels.numbers), pixel_array(pydicom.dcmread(io.BytesIO(data))))


@pytest.mark.parametrize("name", sorted(set(GRAYSCALE) - WITHOUT_WINDOW))
def test_shades_of_files_with_a_window(name: str):
    dataset = pydicom.dcmread(io.BytesIO(data := example(name)))
    values = apply_modality_lut(pixel_array(dataset), dataset)
    shown = apply_voi_lut(values, dataset)
    signed, bits = bool(dataset.PixelRepresentation), int(dataset.BitsStored)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    lowest = (-(2 ** (bits - 1)) if signed else 0) * slope + intercept
    expected = np.round((shown - lowest) / ((2**bits - 1) * slope) * 255)
    assert np.abs(decode.decode(data, LIMITS)[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("name", COPIES)
def test_one_picture_in_several_transfer_syntaxes(name: str):
    assert np.array_equal(decode.decode(example(name)), decode.decode(example("MR_small")))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    with pytest.raises(ImageError) as refused:
        decode.decode(example(name), LIMITS)
    assert refused.value.code == REFUSED[name]
