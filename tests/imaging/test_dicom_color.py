"""Color DICOM: planes, color differences, palettes and color profiles."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from pydicom.uid import ExplicitVRBigEndian

from lesion.core.errors import ImageError
from lesion.imaging import decode
from lesion.imaging.dicom.lookup_tables import expand_segments
from tests.support.images.dicom_files import dicom_file
from tests.support.images.hostile import gradient

pydicom = pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
from pydicom.pixels.processing import _expand_segmented_lut, apply_color_lut  # noqa: E402
from pydicom.pixels.utils import pixel_array  # noqa: E402

PICTURE = gradient()
INDICES = (np.arange(48 * 64) % 200).astype(np.uint8).reshape(48, 64)
RED = np.round(np.linspace(0, 255, 200)).astype(np.uint16)
GREEN, BLUE = RED[::-1], RED // 2
PALETTE = np.stack([RED, GREEN, BLUE], -1)


def palette(
    channels: np.ndarray | list[bytes] = PALETTE, *, bits: int = 8, first: int = 0, count: int = 200, segmented=False
) -> dict[str, Any]:
    """The elements of a palette; its channels as numbers (n, 3), which become words, or as bytes."""
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for index, color in enumerate(("Red", "Green", "Blue")):
        data = channels[index] if isinstance(channels, list) else channels[:, index].astype("<u2").tobytes()
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [count % 2**16, first, bits]
        elements[f"{'Segmented' * segmented}{color}PaletteColorLookupTableData"] = data
    return elements


def by_pydicom(data: bytes) -> np.ndarray:
    dataset = pydicom.dcmread(io.BytesIO(data))
    pixels = pixel_array(dataset)
    return apply_color_lut(pixels, dataset) if dataset.SamplesPerPixel == 1 else pixels


def test_rgb_of_either_planar_configuration():
    assert np.array_equal(decode.decode(dicom_file(PICTURE)), PICTURE)
    planes = np.ascontiguousarray(PICTURE.transpose(2, 0, 1)).tobytes()
    data = dicom_file(planes, shape=PICTURE.shape, PlanarConfiguration=1)
    assert np.array_equal(decode.decode(data), PICTURE)
    assert np.array_equal(by_pydicom(data), PICTURE)


@pytest.mark.parametrize("bits", [16, 12, 10])
def test_rgb_of_more_than_8_bits_keeps_the_upper_8(bits: int):
    deep = PICTURE.astype(np.uint16) << (bits - 8) | 3
    assert np.array_equal(decode.decode(dicom_file(deep, BitsStored=bits)), PICTURE)
    planes = np.ascontiguousarray(deep.transpose(2, 0, 1)).tobytes()
    options = {"BitsAllocated": 16, "BitsStored": bits, "HighBit": bits - 1, "PlanarConfiguration": 1}
    assert np.array_equal(decode.decode(dicom_file(planes, shape=PICTURE.shape, **options)), PICTURE)


def test_rgb_in_big_endian():
    deep = (PICTURE.astype(np.uint16) << 8).byteswap()
    assert np.array_equal(decode.decode(dicom_file(deep, syntax=ExplicitVRBigEndian)), PICTURE)


def test_windows_are_for_grayscale_alone():
    assert np.array_equal(decode.decode(dicom_file(PICTURE, WindowCenter=10, WindowWidth=5)), PICTURE)


@pytest.mark.parametrize("planar", [0, 1])
def test_ybr_full(planar: int):
    stored = np.asarray(Image.fromarray(PICTURE).convert("YCbCr"))
    pixels = stored.transpose(2, 0, 1) if planar else stored
    data = dicom_file(
        np.ascontiguousarray(pixels).tobytes(),
        shape=PICTURE.shape,
        PhotometricInterpretation="YBR_FULL",
        PlanarConfiguration=planar,
    )
    assert np.abs(decode.decode(data).astype(int) - PICTURE).max() <= 3
    assert np.array_equal(decode.decode(data), by_pydicom(data))


def test_ybr_full_422():
    stored = np.asarray(Image.fromarray(PICTURE).convert("YCbCr")).reshape(-1, 2, 3)
    halved = np.stack([stored[:, 0, 0], stored[:, 1, 0], stored[:, 0, 1], stored[:, 0, 2]], -1).tobytes()
    data = dicom_file(halved, shape=PICTURE.shape, PhotometricInterpretation="YBR_FULL_422")
    assert np.array_equal(decode.decode(data), by_pydicom(data))
    assert np.abs(decode.decode(data).astype(int) - PICTURE).max() <= 12
    whole = dicom_file(stored.tobytes(), shape=PICTURE.shape, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(decode.decode(whole).astype(int) - PICTURE).max() <= 3, "called reduced, but it is not"
    with pytest.raises(ImageError) as refused:
        decode.decode(dicom_file(halved[:-4], shape=PICTURE.shape, PhotometricInterpretation="YBR_FULL_422"))
    assert refused.value.code == "image_truncated"


def test_large_pictures_are_converted_in_bands(monkeypatch: pytest.MonkeyPatch):
    stored = np.asarray(Image.fromarray(PICTURE).convert("YCbCr"))
    data = dicom_file(stored, PhotometricInterpretation="YBR_FULL")
    whole = decode.decode(data)
    monkeypatch.setattr("lesion.imaging.dicom.color._BAND_PIXELS", 64 * 5)
    assert np.array_equal(decode.decode(data), whole)


# ---------------------------------------------------------------- palettes


def test_a_palette_of_words():
    data = dicom_file(INDICES, **palette())
    assert np.array_equal(decode.decode(data), PALETTE[INDICES])
    assert np.array_equal(decode.decode(data), by_pydicom(data))


def test_a_palette_of_bytes():
    data = dicom_file(INDICES, **palette([RED.astype("u1").tobytes(), GREEN.astype("u1").tobytes(), bytes(200)]))
    assert np.array_equal(decode.decode(data), by_pydicom(data))


def test_a_palette_of_16_bits():
    data = dicom_file(INDICES, **palette(PALETTE * 257, bits=16))
    assert np.array_equal(decode.decode(data), PALETTE[INDICES])
    lower_byte = dicom_file(INDICES, **palette(PALETTE, bits=16))
    assert np.array_equal(decode.decode(lower_byte), PALETTE[INDICES]), "16 bits are declared, 8 are in use"


@pytest.mark.parametrize("first", [0, 30, 190])
def test_the_first_value_of_a_palette(first: int):
    data = dicom_file(INDICES, **palette(first=first))
    assert np.array_equal(decode.decode(data), PALETTE[np.clip(INDICES.astype(int) - first, 0, 199)])
    assert np.array_equal(decode.decode(data), by_pydicom(data))


def test_a_palette_of_65536_colors():
    colors = np.stack([np.arange(2**16), np.arange(2**16)[::-1], np.full(2**16, 7 << 8)], -1)
    indices = (np.arange(48 * 64) * 20).astype(np.uint16).reshape(48, 64)
    data = dicom_file(indices, **palette(colors, bits=16, count=2**16))
    assert np.array_equal(decode.decode(data), colors[indices] >> 8)


def test_a_palette_turns_nothing_round():
    """The presentation of grayscale does not concern colors."""
    data = dicom_file(INDICES, PresentationLUTShape="INVERSE", WindowCenter=3, WindowWidth=2, **palette())
    assert np.array_equal(decode.decode(data), PALETTE[INDICES])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_segmented_palette(bits: int):
    """A run of 40 numbers, a line to the highest, 60 times the same, and a line back."""
    kind, top = ("u1", 250) if bits == 8 else ("<u2", 60_000)
    run = [0, 40, *range(40)]
    words = [*run, 1, 60, top, 1, 60, top, 1, 40, 3]
    segments = np.array(words).astype(kind).tobytes()
    data = dicom_file(INDICES, **palette([segments] * 3, bits=bits, segmented=True))
    expected = by_pydicom(data) >> (bits - 8)
    assert np.array_equal(decode.decode(data), expected)
    assert expected[0, 39, 0] == 39 >> (bits - 8)
    assert expected.max() == top >> (bits - 8)


def test_segments_that_repeat_earlier_ones():
    """PS3.3 C.7.9.2.3: the offset counts bytes, whatever the size of a number."""
    words = [0, 2, 10, 20, 1, 3, 50, 2, 2, 0, 0]
    assert expand_segments(np.array(words, "<u2").tobytes(), 10, 16, True).tolist() == [10, 20, 30, 40, 50] * 2
    short = [0, 2, 10, 20, 1, 3, 50, 2, 2, 0, 0, 0, 0]
    assert expand_segments(bytes(short), 10, 8, True).tolist() == [10, 20, 30, 40, 50] * 2
    assert expand_segments(bytes(short), 10, 8, True).tolist() == _expand_segmented_lut(tuple(short), "<B")
    swapped = np.array(words, ">u2").tobytes()
    assert expand_segments(swapped, 10, 16, False).tolist() == [10, 20, 30, 40, 50] * 2


@pytest.mark.parametrize(
    "words",
    [
        [1, 10, 5],  # a line from nowhere
        [0, 0],  # nothing
        [3, 2, 1, 1],
        [0, 2, 1, 2, 2, 60_000, 0, 0] * 3,  # too many repetitions
        [0, 2, 1, 2, 2, 1, 9, 0],  # a reference to nowhere
        [0, 100, 1],
        [0, 2, 1, 2, 2, 5, 8, 0],  # a reference to itself
    ],
)
def test_damaged_segments_are_refused(words: list[int]):
    with pytest.raises(ImageError) as refused:
        expand_segments(np.array(words, "<u2").tobytes(), 200, 16, True)
    assert refused.value.code == "image_corrupt"


def test_a_bomb_of_segments_ends_at_once():
    """One million lines of 65,535 numbers each."""
    words = np.array([0, 1, 7] + [1, 65_535, 9] * 10**6, "<u2").tobytes()
    with pytest.raises(ImageError):
        expand_segments(words, 256, 16, True)


def test_a_palette_without_a_channel_is_refused():
    elements = palette()
    del elements["BluePaletteColorLookupTableData"]
    with pytest.raises(ImageError, match="blue"):
        decode.decode(dicom_file(INDICES, **elements))


# ---------------------------------------------------------------- color profiles


def swapping_profile() -> bytes:
    """sRGB with the curves of a much darker screen."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    position = profile.index(b"para", 400)
    profile[position + 12 : position + 16] = (3 * 2**16).to_bytes(4, "big")  # gamma
    return bytes(profile)


def test_a_color_profile_becomes_srgb():
    profile = swapping_profile()
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        "RGB",
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(PICTURE), transform))
    shown = decode.decode(dicom_file(PICTURE, ICCProfile=profile))
    assert np.abs(shown.astype(int) - PICTURE).max() > 20
    assert np.abs(shown.astype(int) - expected).max() <= 1
    assert np.array_equal(decode.decode(dicom_file(PICTURE, ICCProfile=b"damaged!")), PICTURE)
    colors = decode.decode(dicom_file(INDICES, ICCProfile=profile, **palette()))
    by_hand = ImageCms.applyTransform(Image.fromarray(PALETTE[INDICES].astype(np.uint8)), transform)
    assert np.abs(colors.astype(int) - np.asarray(by_hand)).max() <= 1


def test_supplemental_palettes_leave_grayscale_alone():
    elements = palette()
    elements["PhotometricInterpretation"] = "MONOCHROME2"
    assert np.array_equal(decode.decode(dicom_file(INDICES, **elements))[..., 0], INDICES)
