"""The memory of decoding is counted from the header alone, for each kind of file, and refused beyond its limit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lesion.data.inspection import examine
from lesion.deduplication.features import make_thumbnail
from lesion.imaging.decode import decode, decode_in_bands, probe
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from lesion.imaging.preprocessing import Preprocessing
from lesion.imaging.refusals import ImageMemoryError
from tests.support.images.decoding_memory import decode_in_child
from tests.support.images.dicom_files import dicom_file
from tests.support.images.hostile import chunk, encode, gradient, oriented, pixel_hash
from tests.support.images.png_files import png_file
from tests.support.images.tiff_files import Page, tiff_file

COLOR = gradient()  # 64 × 48
GRAY = np.ascontiguousarray(COLOR[..., 0])
PIXELS = 64 * 48
BLOCKS = 8 * 6  # of 8 × 8 pixels


def deep(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.uint16) * 257


def jpeg_without_end(picture: np.ndarray) -> bytes:
    return encode(picture, "JPEG").removesuffix(b"\xff\xd9")


def counts() -> dict[str, tuple[bytes, int]]:
    """Files, and how many bytes their decoding holds: Pillow's picture, the codec's buffers, and gray."""
    alpha = np.dstack([COLOR, GRAY])
    progressive = encode(COLOR, "JPEG", progressive=True, subsampling=2)
    return {
        "gray.png": (encode(GRAY), PIXELS * (1 + 1)),
        "palette.png": (encode(Image.fromarray(COLOR).quantize(8)), PIXELS * (1 + 1)),
        "gray16.png": (encode(deep(GRAY)), PIXELS * (2 + 1)),
        "color.png": (encode(COLOR), PIXELS * (4 + 1)),
        "alpha.png": (encode(alpha), PIXELS * (4 + 1)),
        "gray_alpha16.png": (png_file(deep(alpha[..., 2:]), "LA", 16), PIXELS * (4 + 1)),
        "color16.png": (png_file(deep(COLOR), "RGB", 16), PIXELS * (8 + 1)),
        "gray.jpg": (encode(GRAY, "JPEG"), PIXELS * (1 + 1)),
        "color.jpg": (encode(COLOR, "JPEG"), PIXELS * (4 + 1)),
        "cmyk.jpg": (encode(Image.fromarray(COLOR).convert("CMYK"), "JPEG"), PIXELS * (4 + 1)),
        "no_end.jpg": (jpeg_without_end(COLOR), PIXELS * (4 + 4 + 1)),
        # two bytes for each coefficient: one of brightness for each pixel, two of color for four pixels
        "progressive.jpg": (progressive, PIXELS * (4 + 1) + 128 * (BLOCKS + 2 * BLOCKS // 4)),
        "color.webp": (encode(COLOR, "WEBP"), PIXELS * (4 + 9 + 1)),
        "gray.bmp": (encode(GRAY, "BMP"), PIXELS * (1 + 1)),
        "color.bmp": (encode(COLOR, "BMP"), PIXELS * (4 + 1)),
        "plain.tif": (encode(COLOR, "TIFF"), PIXELS * (4 + 1)),
        "packed.tif": (encode(COLOR, "TIFF", compression="tiff_lzw"), PIXELS * (4 + 3 + 1)),  # one strip, unpacked
        "color16.tif": (tiff_file(Page(deep(COLOR), 2)), PIXELS * (6 + 1)),
        "gray16.dcm": (dicom_file(deep(GRAY)), PIXELS * (2 + 2 + 1 + 3)),
        "color.dcm": (dicom_file(COLOR), PIXELS * (3 + 3 + 3)),
    }


@pytest.mark.parametrize("name", counts())
def test_memory_is_counted_before_decoding(name: str) -> None:
    data, needed = counts()[name]
    enough, short = Limits(max_memory=needed), Limits(max_memory=needed - 1)
    assert probe(data, enough).width == 64
    assert decode(data, enough).shape == (48, 64, 3)
    assert examine(data, enough).height == 48
    for refuse in (probe, decode, examine):
        with pytest.raises(ImageMemoryError, match=f"takes {needed:,} bytes while it is decoded") as refusal:
            refuse(data, short)
        assert refusal.value.code == "image_too_many_pixels"


def test_a_deflated_file_is_unpacked_only_as_far_as_its_memory_allows() -> None:
    data = dicom_file(np.zeros((1000, 1000), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    assert len(data) < 5000
    with pytest.raises(ImageMemoryError, match="takes 1,000,001 bytes"):
        probe(data, Limits(max_memory=10**6))


def test_a_jpeg_that_is_read_at_an_eighth_takes_as_little_memory() -> None:
    data = encode(gradient(480, 640), "JPEG")
    needed = 640 * 480 // 64 * 5
    assert Preprocessing(size=16).read(data, Limits(max_memory=needed)).shape == (16, 16, 3)
    with pytest.raises(ImageMemoryError, match=f"takes {needed:,} bytes"):
        Preprocessing(size=16).read(data, Limits(max_memory=needed - 1))


def test_the_memory_follows_from_the_most_pixels_and_covers_what_was_accepted_before() -> None:
    assert DEFAULT_LIMITS.memory == 300_000_000
    data, needed = encode(COLOR, "WEBP"), 16 * PIXELS
    with pytest.raises(ImageMemoryError):
        decode(data, Limits(max_pixels=PIXELS))
    accepted = Limits(max_pixels=PIXELS).covering(len(data), PIXELS, 16)
    assert accepted.memory >= needed
    assert decode(data, accepted).shape == (48, 64, 3)


def test_large_pictures_are_fitted_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bands of rows, which takes less memory: the same pixels."""
    picture = np.zeros((300, 200, 3), np.uint8)
    picture[40:260, 20:180] = gradient(220, 160)
    fits = [Preprocessing(size=64, trim=trim) for trim in (False, True)]
    whole = [fit(picture) for fit in fits]
    monkeypatch.setattr("lesion.imaging.preprocessing._BAND_PIXELS", 1000)
    for fit, expected in zip(fits, whole, strict=True):
        np.testing.assert_array_equal(fit(picture), expected)
        assert not np.array_equal(expected, replace(fit, trim=not fit.trim)(picture))


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # how a stored picture is shown: Exif 3.0, tag 274
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "deep L", "deep RGB", "deep LA"])
def test_bands_are_upright_and_in_order(kind: str, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the orientation, the bands are what a picture shows, from the top, and examined as it is."""
    channels, bits = len(kind.removeprefix("deep ")), 16 if kind.startswith("deep") else 8
    samples = np.random.default_rng(5).integers(0, 2**bits, (48, 64, channels), np.uint16)
    data = png_file(samples.astype(f"u{bits // 8}"), kind.removeprefix("deep "), bits)
    shown = np.ascontiguousarray(TURNS[turn](decode(data)))
    turned = data[:33] + chunk(b"eXIf", oriented(turn).tobytes()) + data[33:]
    for pixels in (10**6, 64 * 10):
        monkeypatch.setattr("lesion.imaging.pixels._BAND_PIXELS", pixels)
        monkeypatch.setattr("lesion.imaging.exact_samples._BAND_SAMPLES", pixels)
        bands = list(decode_in_bands(turned))
        np.testing.assert_array_equal(np.concatenate(bands), shown)
        np.testing.assert_array_equal(decode(turned), shown)
        in_one = turn >= 5 and kind in ("deep RGB", "deep LA")  # their differences run along rows
        assert (len(bands) == 1) == (in_one or pixels == 10**6)
        record = examine(turned)
        assert (record.pixel_sha256, record.height, record.width) == (pixel_hash(shown), *shown.shape[:2])
        assert record.brightness == pytest.approx(shown.mean(), abs=1e-9)
        gray = Image.fromarray(shown).convert("L")
        assert record.phash == str(imagehash.phash(gray))
        np.testing.assert_array_equal(record.thumbnail, make_thumbnail(shown))


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "LA"])
def test_deep_pictures_are_the_same_in_bands(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(3).integers(0, 2**16, (48, 64, len(kind)), np.uint16)
    data = png_file(samples, kind, 16)
    whole = decode(data)
    monkeypatch.setattr("lesion.imaging.exact_samples._BAND_SAMPLES", 500)
    np.testing.assert_array_equal(decode(data), whole)
    assert whole.std() > 10


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "LA", "L"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_large_picture_is_the_mean_of_its_squares(kind: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reduced before it is fitted, in bands of rows, of which none ends within a square."""
    samples = np.random.default_rng(3).integers(0, 2**bits, (210, 161, len(kind)), np.uint16)
    if "A" in kind:
        samples[..., -1] = 2**bits - 1
    data = png_file(samples.astype(f"u{bits // 8}"), kind, bits)
    monkeypatch.setattr("lesion.imaging.decode._LARGE_PIXELS", 210 * 161 - 1)
    monkeypatch.setattr("lesion.imaging.pixels._BAND_PIXELS", 161 * 10)
    monkeypatch.setattr("lesion.imaging.exact_samples._BAND_SAMPLES", 161 * 10)
    whole = decode(data)
    assert whole.shape == (210, 161, 3)
    reduced = decode(data, target_side=20)
    assert reduced.shape == (53, 41, 3), "a quarter, and the rest of the last square"
    means = whole[:208, :160].reshape(52, 4, 40, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced[:52, :40] - means).max() <= 0.51
    assert decode(data, target_side=41).shape == (210, 161, 3)
    assert np.abs(Preprocessing(size=20)(reduced).astype(int) - Preprocessing(size=20)(whole)).mean() < 2


def test_a_large_picture_that_is_reduced_takes_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lesion.imaging.decode._LARGE_PIXELS", PIXELS - 1)
    needed = PIXELS * 4 + PIXELS // 3**2
    assert decode(encode(COLOR), Limits(max_memory=needed), target_side=8).shape == (16, 22, 3)
    with pytest.raises(ImageMemoryError, match=f"takes {needed:,} bytes"):
        decode(encode(COLOR), Limits(max_memory=needed - 1), target_side=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "held_bytes"),
    [
        ("PNG", {"compress_level": 1}, 4),
        ("JPEG", {}, 4),
        ("JPEG", {"progressive": True, "subsampling": 0}, 10),
        ("WEBP", {"method": 0, "quality": 10}, 13),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 4),
    ],
)
def test_what_is_counted_is_what_decoding_takes(
    kind: str, options: dict[str, Any], held_bytes: int, tmp_path: Path
) -> None:
    """Of a pixel: what Pillow and its codec hold, and three bytes of the whole result or one of its bands."""
    picture = np.resize(gradient(), (3000, 4000, 3))
    data, small = encode(picture, kind, **options), encode(COLOR, kind, **options)
    for how, result_bytes in (("decode", 3), ("examine", 1)):
        shape, growth = decode_in_child(data, tmp_path, small, how)
        assert shape == "3000x4000"
        counted = (held_bytes + result_bytes) * 3000 * 4000
        assert 0.8 * counted < growth < 1.1 * counted + 2**24, f"{how}: bands of rows take up to 16 MiB"
