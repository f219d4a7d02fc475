"""DICOM files made in code, down to the grey a viewer would show."""

import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from lesion.core.errors import ImageError
from lesion.imaging import decode, dicom
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from tests.support.images.dicom_files import dicom_file
from tests.support.images.hostile import encode, gradient

pydicom = pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")


RAMP = np.arange(1024, dtype=np.uint16).reshape(32, 32)


def grey(data: bytes) -> np.ndarray:
    """The decoded picture's one grey channel."""
    image = decode.decode(data)
    assert image.dtype == np.uint8
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])
    return image[..., 0]


def code(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    with pytest.raises(ImageError) as refusal:
        decode.decode(data, limits)
    return refusal.value.code


def test_8_bits_are_shown_as_they_are():
    pixels = gradient()[..., 0]
    assert np.array_equal(grey(dicom_file(pixels)), pixels)
    assert np.array_equal(grey(dicom_file(pixels, syntax=ImplicitVRLittleEndian)), pixels)


def test_monochrome1_is_turned_round():
    pixels = gradient()[..., 0]
    assert np.array_equal(grey(dicom_file(pixels, PhotometricInterpretation="MONOCHROME1")), 255 - pixels)
    inverse = dicom_file(pixels, PresentationLUTShape="INVERSE")
    assert np.array_equal(grey(inverse), 255 - pixels)
    both = dicom_file(pixels, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(grey(both), pixels)


def test_deep_values_without_a_window_reach_from_lowest_to_highest():
    shown = grey(dicom_file(RAMP + 5000, BitsStored=13, HighBit=12))
    assert shown[0, 0] == 0
    assert shown[31, 31] == 255
    assert shown[16, 0] == round(512 * 255 / 1023)
    assert (grey(dicom_file(np.full((32, 32), 7, np.uint16))) == 0).all()


def test_window_after_rescaling():
    """CT: stored value · 1 − 1024 in Hounsfield units, seen through a brain window of 80 around 40."""
    hounsfield = np.array([-1000, 0, 20, 40, 79, 80, 500], np.int16).repeat(32 * 32)[: 7 * 1024].reshape(7 * 32, 32)
    stored = (hounsfield + 1024).astype(np.uint16)
    data = dicom_file(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=80)
    expected = {-1000: 0, 0: 0, 20: 65, 40: 129, 79: 255, 80: 255, 500: 255}  # ((x − 39.5) / 79 + 0.5) · 255
    for value, shade in expected.items():
        assert (grey(data)[hounsfield == value] == shade).all(), value
    signed = dicom_file(hounsfield, WindowCenter=[40, 600], WindowWidth=[80, 2000])
    assert np.array_equal(grey(signed), grey(data)), "the first of several windows"


def test_window_functions():
    values = np.array([0.0, 64.0, 128.0, 255.0])
    assert np.allclose(dicom.window(values, 128, 256, "LINEAR") * 255, values)
    assert np.allclose(dicom.window(values, 128, 256, "LINEAR_EXACT"), values / 256)
    assert np.allclose(dicom.window(values, 128, 256, "SIGMOID")[[1, 2]], [1 / (1 + np.e), 0.5])
    for width, function in ((0, "LINEAR"), (-1, "SIGMOID"), (float("nan"), "LINEAR"), (9, "CUBIC")):
        with pytest.raises(ImageError):
            dicom.window(values, 0, width, function)


def test_voi_table():
    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.LUTData = np.arange(255, -1, -1, dtype="<u2").tobytes()
    table["LUTData"].VR = "OW"
    pixels = gradient()[..., 0]
    assert np.array_equal(grey(dicom_file(pixels, VOILUTSequence=[table])), 255 - pixels)


def test_rgb_of_either_planar_configuration():
    picture = gradient()
    assert np.array_equal(decode.decode(dicom_file(picture)), picture)
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1)).tobytes()
    data = dicom_file(planes, shape=picture.shape, PlanarConfiguration=1)
    assert np.array_equal(decode.decode(data), picture)


def test_ybr():
    picture = gradient()
    stored = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    decoded = decode.decode(dicom_file(stored, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(decoded.astype(int) - picture).max() <= 3


def test_jpeg_and_jpeg_2000():
    picture = gradient()
    frame = encode(picture, "JPEG", quality=95, subsampling=0)
    data = dicom_file(
        encapsulate([frame]), shape=picture.shape, syntax=JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"
    )
    assert np.abs(decode.decode(data).astype(int) - picture).max() <= 16
    frame = encode(picture[..., 0], "JPEG2000", irreversible=False, no_jp2=True)
    data = dicom_file(encapsulate([frame]), shape=picture.shape[:2], syntax=JPEG2000Lossless)
    assert np.array_equal(grey(data), picture[..., 0])


def test_a_large_picture_behind_a_small_header_is_refused():
    frame = encode(np.zeros((4000, 4000), np.uint8), "JPEG")
    assert code(dicom_file(encapsulate([frame]), shape=(32, 32), syntax=JPEGBaseline8Bit)) == "image_corrupt"
    frame = encode(np.zeros((4000, 4000), np.uint8), "JPEG2000", no_jp2=True)
    assert code(dicom_file(encapsulate([frame]), shape=(32, 32), syntax=JPEG2000Lossless)) == "image_corrupt"


def test_refusals():
    pixels = gradient()[..., 0]
    whole = dicom_file(pixels)
    assert code(whole[: len(whole) - 500]) == "image_truncated"
    assert code(whole[:140]) in {"image_truncated", "image_mode_not_supported", "image_corrupt"}
    assert code(dicom_file(np.tile(pixels, (4, 1)), Rows=48, NumberOfFrames=4)) == "image_animated"
    assert code(dicom_file(pixels, Rows=60_000, Columns=60_000)) == "image_too_many_pixels"
    assert code(dicom_file(pixels[:8])) == "image_too_small"
    assert code(dicom_file(pixels, Rows=0)) == "image_corrupt"
    assert code(whole, Limits(max_pixels=100)) == "image_too_many_pixels"
    assert code(dicom_file(pixels, PhotometricInterpretation="PALETTE COLOR")) == "image_mode_not_supported"
    assert code(dicom_file(pixels.astype(np.uint32))) == "image_mode_not_supported"
    assert code(dicom_file(encapsulate([b"ab"]), shape=(32, 32), syntax=RLELossless)) == "image_mode_not_supported"
    assert code(dicom_file(pixels, syntax=DeflatedExplicitVRLittleEndian)) == "image_mode_not_supported"
    assert code(dicom_file(pixels, WindowCenter=1, WindowWidth=0)) == "image_corrupt"


def test_probe_reads_the_header():
    facts = decode.probe(dicom_file(RAMP))
    assert facts == decode.ImageFacts("DICOM", "I;16", 32, 32, len(dicom_file(RAMP)))
    with pytest.raises(ImageError) as refusal:
        decode.probe(dicom_file(RAMP, NumberOfFrames=2))
    assert refusal.value.code == "image_animated"


def test_the_patient_is_not_read():
    data = dicom_file(RAMP)
    dataset = dicom._read_dataset(data, DEFAULT_LIMITS)
    assert b"Doe^Jane" in data
    assert "PatientName" not in dataset
    assert "PatientID" not in dataset


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"lesion\[dicom\]") as refusal:
        decode.decode(dicom_bytes := bytes(128) + b"DICM" + bytes(100))
    assert refusal.value.code == "image_type_not_supported"
    with pytest.raises(ImageError, match=r"lesion\[dicom\]"):
        decode.probe(dicom_bytes)


def test_fuzz():
    """Whatever the bytes: an array or an ImageError."""
    from tests.support.images.hostile import mutated

    rng = np.random.default_rng(0)
    files = [
        dicom_file(RAMP, WindowCenter=500, WindowWidth=300, RescaleSlope=2, RescaleIntercept=-5),
        dicom_file(gradient()),
        dicom_file(encapsulate([encode(gradient(), "JPEG")]), shape=(48, 64, 3), syntax=JPEGBaseline8Bit),
    ]
    seen = {"decoded": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(300):
            start = bytearray(files[turn % len(files)])
            head = mutated(bytes(start[132:900]), rng)
            try:
                decode.decode(bytes(start[:132]) + head + bytes(start[900:]), Limits(max_pixels=10**6))
                seen["decoded"] += 1
            except ImageError:
                seen["refused"] += 1
    assert seen["decoded"] > 20
    assert seen["refused"] > 20
