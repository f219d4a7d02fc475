"""DICOM files that are written again: the same pixels, and nothing of what was planted beside them."""

import hashlib
import io
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode, probe
from lesion.imaging.dicom.recognition import is_dicom
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from tests.support.paths import REPOSITORY

pydicom = pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]  # noqa: E402
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian  # noqa: E402

from lesion.imaging.dicom import deidentification, elements  # noqa: E402
from lesion.imaging.dicom.deidentification import DeidentifiedFile, deidentify, read_patient_id  # noqa: E402
from tests.support.images.dicom_files import dicom_file, item, table, without_preamble  # noqa: E402

FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))
EXAMPLES = [path for path in FILES if is_dicom(path.read_bytes()[:512])]
WIDE = Limits(min_side=1)
SECRET = "GEHEIM"  # in every text that is planted; in capitals, so that it is a valid code, too
DAY, NUMBER = "19530417", "48151623"


def remap(uid: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(uid.encode()).digest()[:16])}"


def cleaned(data: bytes, limits: Limits = WIDE) -> DeidentifiedFile:
    return deidentify(data, limits, remap)


def content(data: bytes) -> bytes:
    """A file's bytes and what is deflated in them."""
    rest = data.partition(b"DICM")[2]
    length = int.from_bytes(rest[8:12], "little")
    try:
        return data + zlib.decompress(rest[12 + length :], -zlib.MAX_WBITS)
    except zlib.error:
        return data


def gray(seed: int = 0, kind: str = "<u2", high: int = 4096) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (24, 31)).astype(kind)


# The pixels


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_of_pydicom_keep_their_pixels(path: Path) -> None:
    data = path.read_bytes()
    code = refusal_of(data)
    if code:
        with pytest.raises(ImageError) as refused:
            cleaned(data)
        assert not header_is_read(data) or refused.value.code == code  # the others differ in what they look at first
        return
    after = cleaned(data).data
    np.testing.assert_array_equal(decode(after, WIDE), decode(data, WIDE))
    assert pydicom.dcmread(io.BytesIO(after)).PatientIdentityRemoved == "YES"
    old, new = probe(data, WIDE), probe(after, WIDE)
    assert (new.width, new.height, new.device) == (old.width, old.height, old.device)


def refusal_of(data: bytes) -> str:
    try:
        decode(data, WIDE)
    except ImageError as error:
        return error.code
    return ""


def header_is_read(data: bytes) -> bool:
    try:
        probe(data, WIDE)
    except ImageError:
        return False
    return True


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"WindowCenter": ["2000", "40"], "WindowWidth": ["1000.5", "400"]},
        {"WindowCenter": "1.23456789012e3", "WindowWidth": "99", "VOILUTFunction": "SIGMOID"},
        {"RescaleSlope": "0.1", "RescaleIntercept": "-1024", "WindowCenter": "-800", "WindowWidth": "300"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
        {"PresentationLUTShape": "INVERSE"},
        {"PixelPaddingValue": 63536},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 900},
        {"BitsStored": 12, "HighBit": 11},
        {"ModalityLUTSequence": [table(np.arange(4096)[::-1] * 3, first=0)]},
        {"VOILUTSequence": [table(np.arange(100) * 600, first=700)], "RescaleSlope": "2", "RescaleIntercept": "-5"},
    ],
    ids=lambda shown: "-".join(shown) or "plain",
)
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
def test_what_decides_how_pixels_are_shown_is_kept(shown: dict[str, Any], syntax: Any) -> None:
    pixels = gray()
    pixels[:4, :4] = 63536  # padding, which uses bits that are not of the value
    data = dicom_file(pixels, **shown, **({"syntax": syntax} if syntax else {}))
    np.testing.assert_array_equal(decode(cleaned(data).data, WIDE), decode(data, WIDE))


def test_signed_numbers_keep_their_sign_in_any_number_of_bits() -> None:
    for bits in (9, 12, 16):
        pixels = (gray().astype(int) * 16 % 2**bits).astype("<u2").view("<i2")
        data = dicom_file(pixels, BitsStored=bits, HighBit=bits - 1, PixelPaddingValue=-3)
        np.testing.assert_array_equal(decode(cleaned(data).data, WIDE), decode(data, WIDE))


def test_a_large_picture_that_a_reader_would_not_inflate_is_not_deflated() -> None:
    limits = Limits(max_pixels=64 * 64, min_side=1, max_memory=15 * 64 * 64)
    data = dicom_file(np.random.default_rng(0).integers(0, 2**16, (64, 64, 3)).astype("<u2"))
    after = cleaned(data, limits).data
    np.testing.assert_array_equal(decode(after, limits), decode(data, limits))


def test_the_same_file_becomes_the_same_file() -> None:
    data = dicom_file(gray(), SOPInstanceUID="1.2.3.4")
    assert cleaned(data).data == cleaned(data).data
    assert cleaned(data).data != cleaned(dicom_file(gray(), SOPInstanceUID="1.2.3.5")).data


# What is beside them


def planted() -> bytes:
    """A file with every element of the standard that holds text, a date or a number, and a secret in each."""
    values: dict[str, Any] = {
        "AE": SECRET, "LO": SECRET, "LT": SECRET, "PN": f"{SECRET}^Anna", "SH": SECRET, "ST": SECRET,
        "UC": SECRET, "UR": SECRET, "UT": SECRET, "CS": SECRET, "DA": DAY, "DT": DAY, "AS": "048Y",
        "TM": "1953", "UI": f"1.2.{NUMBER}", "IS": NUMBER, "DS": NUMBER, "OB": SECRET.encode(), "OW": SECRET.encode(),
        "UN": SECRET.encode(), "SQ": [item(PatientName=f"{SECRET}^Ina", PatientBirthDate=DAY, PatientComments=SECRET)],
    }  # fmt: skip
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(gray())))
    spared = {*elements._TAGS, *deidentification.KEPT}  # the picture's own, and those that the next test is about
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 not in (0x0000, 0x0002, 0x7FE0) and keyword not in spared and vr in values:
            dataset.add_new(tag, vr, values[vr])
    lut = table(np.arange(4096) * 3)
    lut.LUTExplanation = SECRET
    dataset.ModalityLUTSequence = [lut]
    dataset.PerFrameFunctionalGroupsSequence = [item(FrameContentSequence=[item(FrameComments=SECRET)])]
    dataset.private_block(0x0011, "LESION", create=True).add_new(1, "LO", SECRET)
    dataset.private_block(0x7FE1, "LESION", create=True).add_new(1, "OB", SECRET.encode())
    dataset.add_new(0x60003000, "OW", SECRET.encode())  # an overlay
    assert len(dataset) > 3000
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def test_nothing_that_is_planted_remains() -> None:
    data = planted()
    after = content(cleaned(data).data)
    assert deidentification.METHOD.encode() in after  # it is looked into what is deflated
    for secret in (SECRET, DAY, NUMBER, "Anna", "048Y"):
        assert secret.encode() in data
        assert secret.encode() not in after, secret
    np.testing.assert_array_equal(decode(cleaned(data).data, WIDE), decode(data, WIDE))


def test_a_kept_element_with_a_text_that_has_not_its_form_is_left_out() -> None:
    data = dicom_file(
        gray(), Modality="Doe Jane", BodyPartExamined="Doe", InstanceNumber="7", SliceThickness="2.5",
        PixelSpacing=["0.5", "0.25"], ImagePositionPatient=["-1", "2", "3e-2"], PatientPosition="HFS",
        SOPClassUID="1.3.6.1.4.1.48151623", Manufacturer="ACME", ManufacturerModelName="M\n1",
    )  # fmt: skip
    after = pydicom.dcmread(io.BytesIO(cleaned(data).data))
    assert "Modality" not in after
    assert "BodyPartExamined" not in after
    assert "ManufacturerModelName" not in after
    assert (after.InstanceNumber, after.SliceThickness, after.PatientPosition) == (7, 2.5, "HFS")
    assert list(after.PixelSpacing) == [0.5, 0.25]
    assert list(after.ImagePositionPatient) == [-1, 2, 0.03]
    assert after.SOPClassUID == after.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (after.Manufacturer, after.PatientName, after.PatientID) == ("ACME", "", "")


def test_images_of_a_series_stay_together_under_other_names() -> None:
    files = [dicom_file(gray(n), StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", SOPInstanceUID=f"1.2.3.4.{n}")
             for n in range(2)]  # fmt: skip
    first, second = (pydicom.dcmread(io.BytesIO(cleaned(data).data)) for data in files)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID == remap("1.2.3.4")
    assert first.StudyInstanceUID == second.StudyInstanceUID != "1.2.3"
    assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID == remap("1.2.3.4.0")
    assert second.SOPInstanceUID == remap("1.2.3.4.1")


def test_comments_in_compressed_pixels_and_bits_beside_the_value_are_gone() -> None:
    import imagecodecs

    shown = gray(high=256, kind="u1")
    stream = imagecodecs.jpeg8_encode(shown, lossless=True)
    comment = b"\xff\xfe" + (2 + len(SECRET)).to_bytes(2) + SECRET.encode()
    wrapped = pydicom.encaps.encapsulate([stream[:2] + comment + stream[2:] + SECRET.encode()])
    data = dicom_file(wrapped, syntax=pydicom.uid.JPEGLosslessSV1, shape=shown.shape)
    assert SECRET.encode() in data
    after = cleaned(data).data
    assert SECRET.encode() not in content(after)
    np.testing.assert_array_equal(decode(after, WIDE)[..., 0], shown)

    hidden = gray() | 0xA000
    after = pydicom.dcmread(io.BytesIO(cleaned(dicom_file(hidden, BitsStored=12, HighBit=11)).data))
    np.testing.assert_array_equal(np.frombuffer(after.PixelData[: hidden.nbytes], "<u2").reshape(24, 31), gray())

    longer = dicom_file(np.concatenate([gray(kind="u1", high=256).ravel(), np.frombuffer(SECRET.encode(), "u1")])
                        .tobytes(), shape=(24, 31))  # fmt: skip
    assert SECRET.encode() in longer
    assert SECRET.encode() not in content(cleaned(longer).data)


@pytest.mark.parametrize("made", [without_preamble, lambda data: without_preamble(data, file_information=True)])
def test_old_forms_of_files_are_freed_as_well(made: Any) -> None:
    data = made(dicom_file(gray(), syntax=ImplicitVRLittleEndian))
    assert b"Doe^Jane" in data
    assert b"Doe" not in content(cleaned(data).data)
    big = dicom_file(gray(kind=">u2"), syntax=ExplicitVRBigEndian, PatientComments=SECRET)
    np.testing.assert_array_equal(decode(cleaned(big).data, WIDE), decode(big, WIDE))


def test_the_preamble_is_empty() -> None:
    data = SECRET.encode().ljust(128, b"x") + dicom_file(gray())[128:]
    assert cleaned(data).data[:132] == bytes(128) + b"DICM"


def test_the_patient_is_told_and_not_kept() -> None:
    data = dicom_file(gray(), PatientID=" A 17\0")
    assert cleaned(data).patient_id == read_patient_id(data, WIDE) == "A 17"
    assert cleaned(dicom_file(gray(), PatientID=None)).patient_id == ""


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"BurnedInAnnotation": "YES"}, "yes"),
        ({"BurnedInAnnotation": "NO", "Modality": "US"}, "no"),
        ({"Modality": "US"}, "possible"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "possible"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "possible"),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "no"),
    ],
)
def test_text_in_the_pixels_is_warned_of(said: dict[str, str], text: str) -> None:
    assert cleaned(dicom_file(gray(), **said)).text_in_pixels == text


def test_what_cannot_be_decoded_is_refused_in_the_same_words() -> None:
    whole = dicom_file(gray())
    for data in (whole[:-200], dicom_file(gray(), NumberOfFrames=2), dicom_file(gray(), WindowCenter="1", Rows=7000)):
        with pytest.raises(ImageError) as refused:
            decode(data, DEFAULT_LIMITS)
        with pytest.raises(ImageError) as again:
            cleaned(data, DEFAULT_LIMITS)
        assert (again.value.code, again.value.message) == (refused.value.code, refused.value.message)


def test_the_documentation_lists_what_is_kept() -> None:
    page = (REPOSITORY / "docs" / "identity.md").read_text("utf-8")
    listed = set(re.findall(r"`([A-Z]\w+)`", page.partition("## What stays in a DICOM file")[2].partition("\n## ")[0]))
    written = {*deidentification.KEPT, *deidentification.REMAPPED_UIDS, *deidentification.SHOWN}
    assert written <= listed
    copy = pydicom.dcmread(io.BytesIO(cleaned(dicom_file(gray(), WindowCenter="5", WindowWidth="9")).data))
    assert {element.keyword for element in copy} <= listed
