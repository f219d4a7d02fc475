"""Grayscale DICOM, down to the gray that a viewer would show."""

import io
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lesion.core.errors import ImageError
from lesion.imaging import decode
from lesion.imaging.dicom.grayscale import ordinary_range, window
from tests.support.images.dicom_files import dicom_file, item, table
from tests.support.images.hostile import gradient

pydicom = pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.pixels.utils import pixel_array  # noqa: E402

RAMP = np.arange(1024, dtype=np.uint16).reshape(32, 32)
SMOOTH = gradient()[..., 0]
DEEP = np.round(SMOOTH.astype(float) * 1000 / 255).astype(np.int16)  # 0 to 1000


def gray(data: bytes) -> np.ndarray:
    return decode.decode(data)[..., 0]


def by_pydicom(data: bytes, *, lowest: float, highest: float) -> np.ndarray:
    """What pydicom's own pipeline shows, scaled from the range that it gives its output to 0 to 255."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(apply_modality_lut(pixel_array(dataset), dataset), dataset).astype(float)
    shades = (shown - lowest) / (highest - lowest)
    return np.round((1 - shades if dataset.PhotometricInterpretation == "MONOCHROME1" else shades) * 255)


def test_8_bits_are_shown_as_they_are():
    assert np.array_equal(gray(dicom_file(SMOOTH)), SMOOTH)
    assert np.array_equal(gray(dicom_file(SMOOTH, syntax=ImplicitVRLittleEndian)), SMOOTH)
    assert np.array_equal(gray(dicom_file(SMOOTH, RescaleSlope=1, RescaleIntercept=0)), SMOOTH)
    assert np.array_equal(gray(dicom_file(SMOOTH // 2, RescaleSlope=3, RescaleIntercept=-9)), SMOOTH // 2)


def test_8_bits_in_16_and_fewer_bits_in_8():
    assert np.array_equal(gray(dicom_file(SMOOTH.astype(np.uint16), BitsStored=8)), SMOOTH)
    assert np.array_equal(gray(dicom_file(SMOOTH // 4, BitsStored=6)), np.round(SMOOTH // 4 * (255 / 63)))


def test_signed_8_bits():
    signed = (SMOOTH.astype(int) - 128).astype(np.int8)
    assert np.array_equal(gray(dicom_file(signed)), SMOOTH)


def test_1_bit_is_black_and_white():
    mask = SMOOTH > 100
    packed = np.packbits(mask.ravel(), bitorder="little").tobytes()
    data = dicom_file(packed, shape=mask.shape, BitsAllocated=1, BitsStored=1, HighBit=0)
    assert np.array_equal(gray(data), mask * 255)


# ---------------------------------------------------------------- presentation


@pytest.mark.parametrize("shape", [None, "INVERSE", "IDENTITY"])
def test_monochrome1_is_turned_round_once(shape: str | None):
    elements = {} if shape is None else {"PresentationLUTShape": shape}
    assert np.array_equal(gray(dicom_file(SMOOTH, PhotometricInterpretation="MONOCHROME1", **elements)), 255 - SMOOTH)


def test_the_shape_inverse_alone_turns_round_too():
    assert np.array_equal(gray(dicom_file(SMOOTH, PresentationLUTShape="INVERSE")), 255 - SMOOTH)
    assert np.array_equal(gray(dicom_file(SMOOTH, PresentationLUTShape="IDENTITY")), SMOOTH)


def test_turned_round_after_window_rescaling_and_table():
    for elements in (
        {"WindowCenter": 500, "WindowWidth": 600},
        {"RescaleSlope": 0.5, "RescaleIntercept": -100, "WindowCenter": 100, "WindowWidth": 300},
        {"VOILUTSequence": [table(np.arange(1024) * 4, bits=12)]},
    ):
        straight = gray(dicom_file(DEEP, **elements)).astype(int)
        for turned in (
            {"PhotometricInterpretation": "MONOCHROME1"},
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        ):
            assert np.abs(gray(dicom_file(DEEP, **elements, **turned)) - (255 - straight)).max() <= 1


# ---------------------------------------------------------------- no window: the ordinary range


def test_deep_values_without_a_window_reach_from_lowest_to_highest():
    shown = gray(dicom_file(RAMP + 5000, BitsStored=13))
    assert shown[0, 0] == 0
    assert shown[31, 31] == 255
    assert shown[16, 0] == round(512 * 255 / 1023)
    assert (gray(dicom_file(np.full((32, 32), 7, np.uint16))) == 0).all()


@pytest.mark.parametrize("value", [1200, 4095, 30_000])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_hot_pixels_do_not_decide_the_range(count: int, value: int):
    hot = DEEP.copy()
    hot.ravel()[np.linspace(100, hot.size - 1, count).astype(int)] = value
    ordinary = hot == DEEP
    assert np.abs(gray(dicom_file(hot)).astype(int) - SMOOTH)[ordinary].max() <= 1
    assert (gray(dicom_file(hot))[~ordinary] == 255).all()


def test_dead_pixels_do_not_decide_the_range():
    dead = DEEP.copy()
    dead[3:5, 3:6] = -30_000
    assert np.abs(gray(dicom_file(dead)).astype(int) - SMOOTH)[dead == DEEP].max() <= 1


def test_a_small_bright_spot_on_black_is_the_picture():
    spot = np.zeros((64, 64), np.uint16)
    spot[30:33, 30:33] = 900
    shown = gray(dicom_file(spot))
    assert (shown[30:33, 30:33] == 255).all()
    assert shown.sum() == 9 * 255


def test_ordinary_range_by_hand():
    values, counts = np.arange(5) * np.array([1.0]), np.array([10, 480, 500, 9, 1])
    assert ordinary_range(values, counts) == (0.0, 3.0)  # the middle 99 % are 0 to 3; 4 is more than 0.3 above
    assert ordinary_range(-values, counts) == (-3.0, 0.0)
    assert ordinary_range(values, np.array([1000, 0, 1, 0, 1])) == (0.0, 4.0)
    assert ordinary_range(values, np.array([0, 7, 0, 0, 0])) == (1.0, 1.0)


@pytest.mark.parametrize("elements", [{}, {"RescaleSlope": 2.5, "RescaleIntercept": -1024}])
def test_padding_is_black_and_takes_no_part(elements: dict[str, Any]):
    rows, columns = np.mgrid[:48, :64]
    outside = (rows - 24) ** 2 + (columns - 32) ** 2 > 20**2
    inside = DEEP[~outside].astype(float)
    expected = np.where(outside, 0, (DEEP - inside.min()) * 255 / np.ptp(inside))
    padded = np.where(outside, -2000, DEEP).astype(np.int16)
    for declared in (
        {"PixelPaddingValue": -2000},
        {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990},
        {"PixelPaddingValue": -1990, "PixelPaddingRangeLimit": -2000},
    ):
        assert np.abs(gray(dicom_file(padded, **declared, **elements)) - expected).max() <= 1
    range_of_padding = np.where(outside, -2000 + rows % 8, DEEP).astype(np.int16)
    limits = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1993}
    assert np.abs(gray(dicom_file(range_of_padding, **limits, **elements)) - expected).max() <= 1


def test_padding_of_monochrome1_is_black_too():
    padded = DEEP.copy()
    padded[:, :10] = -2000
    data = dicom_file(padded, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    assert (gray(data)[:, :10] == 0).all()
    inside = DEEP[:, 10:].astype(float)
    assert np.abs(gray(data)[:, 10:] - (255 - (inside - inside.min()) * 255 / np.ptp(inside))).max() <= 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_whose_sign_is_lost(syntax: str):
    padded = DEEP.copy()
    padded[:, :10] = -2000
    data = dicom_file(padded, syntax=syntax, PixelPaddingValue=-2000)
    assert (gray(data)[:, :10] == 0).all()
    assert gray(data)[:, 10:].max() == 255
    if syntax == ExplicitVRLittleEndian:  # −2,000 as the unsigned number 63,536
        unsigned = data.replace(b"\x28\0\x20\1SS", b"\x28\0\x20\1US")
        assert unsigned != data
        assert np.array_equal(gray(unsigned), gray(data))


def test_padding_outside_of_the_bits_in_use():
    """Old scanners pad unsigned values of 12 bits by −2,000, which then reads 63,536."""
    padded = DEEP.astype(np.uint16)
    padded[:, :10] = 63_536
    shown = gray(dicom_file(padded, BitsStored=12, PixelPaddingValue=63_536))
    assert (shown[:, :10] == 0).all()
    assert shown[:, 10:].max() == 255


def test_padding_that_8_bits_cannot_hold():
    white = np.where(SMOOTH > 200, 255, SMOOTH).astype(np.uint8)
    for value in (65_535, 256, -1):
        assert np.array_equal(gray(dicom_file(white, PixelPaddingValue=value % 2**16)), white)
    assert np.array_equal(gray(dicom_file(white, PixelPaddingValue=255)), np.where(white == 255, 0, white))


def test_a_picture_of_padding_alone():
    assert (gray(dicom_file(np.full((32, 32), -2000, np.int16), PixelPaddingValue=-2000)) == 0).all()


# ---------------------------------------------------------------- windows and tables


def test_window_after_rescaling():
    """CT: stored value · 1 − 1024 in Hounsfield units, seen through a brain window of 80 around 40."""
    hounsfield = np.array([-1000, 0, 20, 40, 79, 80, 500], np.int16).repeat(32 * 32)[: 7 * 1024].reshape(7 * 32, 32)
    stored = (hounsfield + 1024).astype(np.uint16)
    data = dicom_file(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=80)
    expected = {-1000: 0, 0: 0, 20: 65, 40: 129, 79: 255, 80: 255, 500: 255}  # ((x − 39.5) / 79 + 0.5) · 255
    for value, shade in expected.items():
        assert (gray(data)[hounsfield == value] == shade).all(), value
    signed = dicom_file(hounsfield, WindowCenter=[40, 600], WindowWidth=[80, 2000])
    assert np.array_equal(gray(signed), gray(data)), "the first of several windows"


def test_window_functions():
    values = np.array([0.0, 64.0, 128.0, 255.0])
    assert np.allclose(window(values, 128, 256, "LINEAR") * 255, values)
    assert np.allclose(window(values, 128, 256, "LINEAR_EXACT"), values / 256)
    assert np.allclose(window(values, 128, 256, "SIGMOID")[[1, 2]], [1 / (1 + np.e), 0.5])
    for width, function in ((0, "LINEAR"), (-1, "SIGMOID"), (float("nan"), "LINEAR"), (9, "CUBIC")):
        with pytest.raises(ImageError):
            window(values, 0, width, function)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 1.5, "RescaleIntercept": -300}])
def test_a_window_as_pydicom_applies_it(kind: str, function: str | None, rescale: dict[str, float]):
    elements: dict[str, Any] = {"WindowCenter": 420, "WindowWidth": 700, **rescale}
    if function:
        elements["VOILUTFunction"] = function
    data = dicom_file(DEEP, PhotometricInterpretation=kind, **elements)
    slope, intercept = rescale.get("RescaleSlope", 1), rescale.get("RescaleIntercept", 0)
    expected = by_pydicom(data, lowest=-32768 * slope + intercept, highest=32767 * slope + intercept)
    assert np.abs(gray(data) - expected).max() <= 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("first", [0, 100, -50])
def test_a_table_as_pydicom_applies_it(syntax: str, first: int):
    entries = (np.sqrt(np.arange(800) / 799) * 65_535).astype(np.uint16)
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        elements: dict[str, Any] = {name: [table(entries, first=first)]}
        if name == "ModalityLUTSequence":
            elements |= {"WindowCenter": 32_768, "WindowWidth": 65_536}
        data = dicom_file(DEEP - 40, syntax=syntax, **elements)
        assert np.abs(gray(data) - by_pydicom(data, lowest=0, highest=65_535)).max() <= 1, name


def test_a_table_goes_before_a_window():
    inverted = table(np.arange(255, -1, -1), bits=8)
    data = dicom_file(SMOOTH, VOILUTSequence=[inverted], WindowCenter=3, WindowWidth=7)
    assert np.array_equal(gray(data), 255 - SMOOTH)
    several = dicom_file(SMOOTH, VOILUTSequence=[inverted, table(np.zeros(256), bits=8)])
    assert np.array_equal(gray(several), 255 - SMOOTH), "the first of several tables"


def test_a_table_of_many_entries_of_8_bits():
    entries = np.arange(1024) // 4
    assert np.abs(gray(dicom_file(RAMP, VOILUTSequence=[table(entries, bits=8)])).astype(int) - RAMP // 4).max() <= 1


def test_a_table_of_bytes():
    packed = item(LUTDescriptor=[256, 0, 8], LUTData=bytes(range(255, -1, -1)))
    packed["LUTData"].VR = "OW"
    assert np.array_equal(gray(dicom_file(SMOOTH, VOILUTSequence=[packed])), 255 - SMOOTH)


def test_a_table_in_big_endian():
    entries = np.arange(1023, -1, -1) * 4
    swapped = table(entries, bits=12)
    swapped.LUTData = entries.astype(">u2").tobytes()
    big = dicom_file(RAMP.byteswap(), syntax=ExplicitVRBigEndian, VOILUTSequence=[swapped])
    assert np.array_equal(gray(big), gray(dicom_file(RAMP, VOILUTSequence=[table(entries, bits=12)])))


def test_modality_and_values_of_interest_in_their_order():
    """A table turns stored values into densities, and the window is about densities."""
    densities = table(np.arange(1024)[::-1] * 4, bits=12)
    data = dicom_file(RAMP, ModalityLUTSequence=[densities], WindowCenter=2048, WindowWidth=4096)
    assert np.abs(gray(data) - np.round((1023.0 - RAMP) * 4 * 255 / 4095)).max() <= 1


def test_damaged_tables_are_refused():
    for broken in (
        item(LUTDescriptor=[1024, 0, 12], LUTData=bytes(100)),
        item(LUTDescriptor=[1024, 0], LUTData=bytes(2048)),
        item(LUTDescriptor=[1024, 0, 40], LUTData=bytes(2048)),
    ):
        broken["LUTData"].VR = "OW"
        with pytest.raises(ImageError) as refused:
            decode.decode(dicom_file(RAMP, VOILUTSequence=[broken]))
        assert refused.value.code in {"image_corrupt", "image_mode_not_supported"}


# ---------------------------------------------------------------- enhanced images, and bits that are no pixels


def functional_group(slope: float, intercept: float, center: float, width: float):
    return item(
        PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")],
        FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=width)],
    )


def test_functional_groups_of_an_enhanced_image():
    plain = gray(dicom_file(DEEP, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=700, WindowWidth=900))
    group, other = functional_group(2, -100, 700, 900), functional_group(1, 0, 5, 5)
    for elements in (
        {"SharedFunctionalGroupsSequence": [group]},
        {"PerFrameFunctionalGroupsSequence": [group]},
        {"SharedFunctionalGroupsSequence": [other], "PerFrameFunctionalGroupsSequence": [group]},
        {"PerFrameFunctionalGroupsSequence": [group], "WindowCenter": 1, "WindowWidth": 2},
    ):
        assert np.array_equal(gray(dicom_file(DEEP, NumberOfFrames=1, **elements)), plain)
    mixed = {
        "SharedFunctionalGroupsSequence": [
            item(PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-100)])
        ],
        "PerFrameFunctionalGroupsSequence": [item(FrameVOILUTSequence=[item(WindowCenter=700, WindowWidth=900)])],
    }
    assert np.array_equal(gray(dicom_file(DEEP, **mixed)), plain)


@pytest.mark.parametrize("signed", [False, True])
def test_12_of_16_bits_with_overlays_in_the_others(signed: bool):
    values = DEEP - 500 if signed else DEEP
    stored = (values.astype(np.uint16) & 0xFFF) | (np.arange(DEEP.size) % 16 << 12).astype(np.uint16).reshape(
        DEEP.shape
    )
    elements = {"PixelRepresentation": int(signed), "WindowCenter": 0 if signed else 500, "WindowWidth": 1001}
    data = dicom_file(stored, BitsStored=12, **elements)
    clean = dicom_file(values, WindowCenter=elements["WindowCenter"], WindowWidth=1001)
    assert np.array_equal(gray(data), gray(clean))


def test_values_in_the_upper_bits():
    stored = (DEEP.astype(np.uint16) << 4) | 9
    window = {"WindowCenter": 500, "WindowWidth": 1001}
    assert np.array_equal(
        gray(dicom_file(stored, BitsStored=12, HighBit=15, **window)), gray(dicom_file(DEEP, **window))
    )
    impossible = dicom_file(DEEP, BitsStored=16, HighBit=3, **window)
    assert np.array_equal(gray(impossible), gray(dicom_file(DEEP, **window)))
