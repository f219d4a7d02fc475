"""DICOM files made in code: what is read, what is refused, and that no bytes can do harm."""

import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from lesion.core.errors import ImageError
from lesion.imaging import decode
from lesion.imaging.dicom.elements import read_elements
from lesion.imaging.dicom.recognition import is_dicom
from lesion.imaging.file_types import is_image
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from tests.support.images.dicom_files import dicom_file, item, without_preamble
from tests.support.images.hostile import encode, gradient, mutated

pydicom = pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")


RAMP = np.arange(1024, dtype=np.uint16).reshape(32, 32)
SMOOTH = gradient()[..., 0]


def gray(data: bytes) -> np.ndarray:
    """The decoded picture's one channel."""
    image = decode.decode(data)
    assert image.dtype == np.uint8
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])
    return image[..., 0]


def refusal(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ImageError:
    """The error of decoding; `probe` raises the same one, unless only the pixels themselves are damaged."""
    with pytest.raises(ImageError) as refused:
        decode.decode(data, limits)
    return refused.value


def code(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    return refusal(data, limits).code


@pytest.mark.parametrize("file_information", [True, False])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_preamble_is_read(syntax: UID | None, file_information: bool, tmp_path: Path):
    options = {} if syntax is None else {"syntax": syntax}
    whole = dicom_file(SMOOTH, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT", **options)
    bare = without_preamble(whole, file_information=file_information)
    assert np.array_equal(gray(bare), SMOOTH)
    assert decode.probe(bare).format == "DICOM"
    file = tmp_path / "IM0001"
    file.write_bytes(bare)
    assert is_image(file), "found in a folder although it has no suffix"


def test_a_file_without_file_information_behind_its_mark():
    whole = dicom_file(SMOOTH, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")
    assert np.array_equal(gray(bytes(128) + b"DICM" + without_preamble(whole)), SMOOTH)


def test_the_list_of_files_on_a_medium_is_no_image(tmp_path: Path):
    for name, found in (
        ("DICOMDIR", False),
        ("dicomdir", False),
        ("IM000017", True),
        ("1.2.840.17", True),
        ("a.md", False),
    ):
        (tmp_path / name).write_bytes(dicom_file(SMOOTH))
        assert is_image(tmp_path / name) is found, name


def test_other_files_are_not_taken_for_dicom():
    assert not is_dicom(b"")
    assert not is_dicom(bytes(600))
    assert not is_dicom(b"\x08\x00\x05\x00")
    assert not is_dicom(b"\x08\x00\x05\x00CS\x0a\x00" + b"x" * 600), "one element is not enough"
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM"):
        assert not is_dicom(encode(gradient(), kind)), kind
    rng = np.random.default_rng(0)
    assert not any(is_dicom(rng.bytes(512)) for _ in range(1000))


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": None, "WindowWidth": "256"},
        {"NumberOfFrames": None},
        {"NumberOfFrames": 0},
        {"WindowCenter": 128, "WindowWidth": 256, "VOILUTFunction": None},
        {"VOILUTSequence": [], "ModalityLUTSequence": []},
        {"VOILUTSequence": [item()], "ModalityLUTSequence": [item(LUTExplanation="none")]},
        {"PresentationLUTShape": None},
        {"PixelPaddingValue": None, "PixelPaddingRangeLimit": None},
        {"SharedFunctionalGroupsSequence": [], "PerFrameFunctionalGroupsSequence": [item()]},
        {"PerFrameFunctionalGroupsSequence": [item(FrameVOILUTSequence=[])]},
        {"SamplesPerPixel": None},
        {"PixelRepresentation": None, "HighBit": None, "BitsStored": None},
        {"PlanarConfiguration": None},
        {"RescaleSlope": 0, "RescaleIntercept": 7},  # no scale at all
        {"RescaleIntercept": 7},  # without its slope
    ],
    ids=lambda elements: "-".join(elements),
)
def test_an_empty_element_is_like_a_missing_one(elements: dict[str, Any]):
    data = dicom_file(SMOOTH, **elements)
    assert np.array_equal(gray(data), SMOOTH)
    assert decode.probe(data).mode == "L"


def test_an_empty_planar_configuration_of_colors():
    assert np.array_equal(decode.decode(dicom_file(gradient(), PlanarConfiguration=None)), gradient())


def test_an_element_that_must_not_be_empty_is_named():
    assert code(dicom_file(SMOOTH, Rows=None)) == "image_mode_not_supported"
    assert "Bits Allocated" in str(refusal(dicom_file(SMOOTH, BitsAllocated=None)))
    assert "unknown" in str(refusal(dicom_file(SMOOTH, PhotometricInterpretation=None)))
    assert code(dicom_file(b"", shape=(32, 32))) == "image_truncated"


def test_refusals():
    whole = dicom_file(SMOOTH)
    assert code(whole[: len(whole) - 500]) == "image_truncated"
    assert code(whole[:140]) in {"image_truncated", "image_mode_not_supported", "image_corrupt"}
    assert code(dicom_file(np.tile(SMOOTH, (4, 1)), Rows=48, NumberOfFrames=4)) == "image_animated"
    assert code(dicom_file(np.tile(SMOOTH, (4, 1)), Rows=48, NumberOfFrames=None)) == "image_animated"
    assert code(dicom_file(SMOOTH, Rows=60_000, Columns=60_000)) == "image_too_many_pixels"
    assert code(dicom_file(SMOOTH[:8])) == "image_too_small"
    assert code(dicom_file(SMOOTH, Rows=0)) == "image_corrupt"
    assert code(whole, Limits(max_pixels=100)) == "image_too_many_pixels"
    assert code(dicom_file(SMOOTH.astype(np.uint32))) == "image_mode_not_supported"
    assert code(dicom_file(SMOOTH, BitsStored=12)) == "image_corrupt"
    assert code(dicom_file(SMOOTH, WindowCenter=1, WindowWidth=0)) == "image_corrupt"
    assert code(dicom_file(SMOOTH, PhotometricInterpretation="HSV")) == "image_mode_not_supported"


@pytest.mark.parametrize(
    ("elements", "part"),
    [
        ({"NumberOfFrames": 12}, "several pictures"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "YBR_PARTIAL_420"),
        ({"BitsAllocated": 12, "BitsStored": 12}, "12 bits per sample"),
        ({"SamplesPerPixel": 4, "PhotometricInterpretation": "ARGB"}, "4 samples per pixel of the kind ARGB"),
        ({"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "CUBIC"}, "CUBIC"),
    ],
)
def test_what_is_not_supported_is_named(elements: dict[str, Any], part: str):
    assert part in str(refusal(dicom_file(SMOOTH, **elements)))


def test_bytes_behind_the_pixels_mean_nothing():
    assert np.array_equal(gray(dicom_file(SMOOTH.tobytes() + bytes(100), shape=SMOOTH.shape)), SMOOTH)


def test_floating_point_pixels_and_reports_are_named():
    floating = dicom_file(SMOOTH, FloatPixelData=bytes(4 * SMOOTH.size))
    assert "floating-point" in str(refusal(floating))
    report = dicom_file(SMOOTH, Rows=None, Columns=None)
    assert "no picture at all" in str(refusal(report))
    assert refusal(report).code == "image_mode_not_supported"


def test_deflated_elements_are_read_within_limits():
    noise = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    data = dicom_file(noise, syntax=DeflatedExplicitVRLittleEndian)
    assert np.array_equal(gray(data), noise)
    assert decode.probe(data).width == 64
    assert code(data[:-1000]) == "image_truncated"


def test_a_bomb_of_deflated_elements_is_refused():
    """20 MB that would inflate to 20 GB are refused after the bytes that a picture within the limits may need."""
    data = dicom_file(SMOOTH, syntax=DeflatedExplicitVRLittleEndian)
    small = dicom_file(SMOOTH)
    head = data[: len(data) - len(_deflated(small))]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = head + b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    assert len(bomb) < 100_000
    assert code(bomb, Limits(max_pixels=10**6)) == "image_too_many_pixels"


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(without_preamble(data)) + packer.flush()
    return packed + bytes(len(packed) % 2)


def test_deflate_is_asked_for_by_its_element_alone():
    """Its number may also be a text elsewhere in the file."""
    data = dicom_file(SMOOTH, ImageComments="1.2.840.10008.1.2.1.99")
    assert np.array_equal(gray(data), SMOOTH)


@pytest.mark.parametrize(
    ("elements", "mode"),
    [
        ({"pixels": RAMP}, "I;16"),
        ({"pixels": SMOOTH}, "L"),
        ({"pixels": gradient()}, "RGB"),
        ({"pixels": bytes(128), "shape": (32, 32), "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "1"),
        ({"pixels": SMOOTH, "PhotometricInterpretation": "PALETTE COLOR"}, "P"),
    ],
)
def test_probe_reads_the_header(elements: dict[str, Any], mode: str):
    data = dicom_file(**elements)
    facts = decode.probe(data)
    assert (facts.format, facts.mode, facts.bytes) == ("DICOM", mode, len(data))


def test_probe_refuses_what_decoding_would():
    for data in (
        dicom_file(RAMP, NumberOfFrames=2),
        dicom_file(encapsulate([b"\0\0\1\xb3mpeg"]), shape=(32, 32), syntax=UID("1.2.840.10008.1.2.4.100")),
        dicom_file(SMOOTH)[:-100],
        dicom_file(SMOOTH, syntax=UID("1.2.840.10008.1.2.1"), FloatPixelData=b"\0\0\0\0"),
    ):
        with pytest.raises(ImageError) as probed:
            decode.probe(data)
        assert probed.value.code == code(data)


def test_the_patient_is_not_read():
    data = dicom_file(RAMP)
    dataset = read_elements(data, DEFAULT_LIMITS)
    assert b"Doe^Jane" in data
    assert "PatientName" not in dataset
    assert "PatientID" not in dataset


@pytest.mark.parametrize("package", ["pydicom", "imagecodecs"])
def test_without_its_packages_the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageError, match=r"lesion\[dicom\]") as refused:
        decode.decode(dicom_bytes := bytes(128) + b"DICM" + bytes(100))
    assert refused.value.code == "image_type_not_supported"
    with pytest.raises(ImageError, match=r"lesion\[dicom\]"):
        decode.probe(dicom_bytes)


def test_fuzz():
    """Whatever the bytes: an array or an ImageError."""
    rng = np.random.default_rng(0)
    files = [
        dicom_file(RAMP, WindowCenter=500, WindowWidth=300, RescaleSlope=2, RescaleIntercept=-5),
        dicom_file(gradient()),
        dicom_file(encapsulate([encode(gradient(), "JPEG")]), shape=(48, 64, 3), syntax=JPEGBaseline8Bit),
        dicom_file(SMOOTH, syntax=DeflatedExplicitVRLittleEndian),
        dicom_file(encapsulate([bytes(64) + b"\x81\0" * 24]), shape=(48, 64), syntax=RLELossless),
    ]
    seen = {"decoded": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(400):
            start = bytearray(files[turn % len(files)])
            head = mutated(bytes(start[132:900]), rng)
            try:
                decode.decode(bytes(start[:132]) + head + bytes(start[900:]), Limits(max_pixels=10**6))
                seen["decoded"] += 1
            except ImageError:
                seen["refused"] += 1
    assert seen["decoded"] > 20
    assert seen["refused"] > 20
