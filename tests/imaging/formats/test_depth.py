"""Depth, photometry and transparency: the brightness of a picture does not depend on how many bits its file has."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import ImageError, TooLargeError
from lesion.imaging.decode import decode, probe
from lesion.imaging.pixels import highest_in_use
from lesion.imaging.preprocessing import Preprocessing
from tests.support.images.hostile import chunk, encode, gradient
from tests.support.images.png_files import png_file
from tests.support.images.tiff_files import DEFLATE, LZW, Page, longs, tiff_file

GRAY = gradient()[..., :1]  # 0 to 255 from top to bottom
COLOR = gradient()
TOP = {10: 1023, 12: 4095, 14: 16383, 16: 65535}


def deep(samples: np.ndarray, bits: int) -> np.ndarray:
    """8-bit samples spread over more bits, stored in 16."""
    return np.round(samples.astype(float) * TOP[bits] / 255).astype(np.uint16)


def with_alpha(samples: np.ndarray, alpha: int) -> np.ndarray:
    return np.dstack([samples, np.full(samples.shape[:2], alpha, samples.dtype)])


@pytest.mark.parametrize("bits", TOP)
@pytest.mark.parametrize("kind", ["png", "tiff", "planar tiff", "compressed tiff"])
def test_color_is_scaled_from_the_bits_in_use(bits: int, kind: str):
    samples = deep(COLOR, bits)
    files = {
        "png": lambda: png_file(samples, "RGB", 16, filtered=4),
        "tiff": lambda: tiff_file(Page(samples, 2)),
        "planar tiff": lambda: tiff_file(Page(samples, 2, planar=True), order=">"),
        "compressed tiff": lambda: tiff_file(Page(samples, 2, compression=LZW, predictor=True, tile=16)),
    }
    data = files[kind]()
    assert np.array_equal(decode(data), COLOR)
    assert np.array_equal(Preprocessing(48).read(data), Preprocessing(48).read(encode(COLOR)))
    assert probe(data).mode == "RGB"


@pytest.mark.parametrize("highest", [4100, 30_000, 65_535])
def test_a_hot_pixel_changes_only_itself(highest: int):
    samples = deep(GRAY, 12)
    samples[7, 9] = highest
    image = decode(png_file(samples, "L", 16))
    expected = np.repeat(GRAY, 3, axis=2)
    expected[7, 9] = 255
    assert np.array_equal(image, expected)
    samples = deep(COLOR, 12)
    samples[7, 9] = highest
    assert np.array_equal(np.delete(decode(tiff_file(Page(samples, 2)))[7], 9, 0), np.delete(COLOR[7], 9, 0))


def test_one_pixel_in_a_thousand_is_odd_and_more_are_the_picture():
    for hot, highest in ((3, 4095), (4, 16383)):  # of 64 × 48 = 3,072 pixels
        samples = deep(GRAY, 12)
        samples[5, :hot] = 9000
        assert highest_in_use([samples]) == highest
    tiny = np.zeros((16, 16, 1), np.uint16)
    tiny[0, 0] = 60_000  # less than one in a thousand would be none at all
    tiny[1:] = 200
    assert highest_in_use([tiny]) == 255
    assert highest_in_use([tiny[:8], tiny[8:]]) == 255, "bands change nothing"


def test_8_bits_that_were_spread_over_16_stay_as_they_are():
    dark = (COLOR // 8).astype(np.uint16) * 257
    assert np.array_equal(decode(png_file(dark, "RGB", 16)), COLOR // 8)
    assert np.array_equal(decode(tiff_file(Page(dark, 2))), COLOR // 8)
    gray = (GRAY // 8).astype(np.uint16) * 257
    assert np.array_equal(decode(encode(gray[..., 0], "TIFF"))[..., :1], GRAY // 8)


@pytest.mark.parametrize("bits", [12, 16])
def test_white_is_zero(bits: int):
    samples = deep(GRAY, bits)
    for order in "<>":
        image = decode(tiff_file(Page(samples, 0), order=order))
        assert np.array_equal(image[..., :1], 255 - GRAY)
    both = np.dstack([samples, np.full_like(samples, TOP[16])])
    assert np.array_equal(decode(tiff_file(Page(both, 0, extra=(2,), compression=DEFLATE)))[..., :1], 255 - GRAY)


@pytest.mark.parametrize("bits", [8, 16])
def test_planes_and_neighbors_are_the_same_picture(bits: int):
    rng = np.random.default_rng(bits)
    for channels, photometric, extra in ((2, 1, (2,)), (2, 1, (1,)), (4, 2, (2,)), (5, 2, (2, 0)), (5, 5, (0,))):
        samples = rng.integers(0, 2**bits, (40, 50, channels)).astype(np.uint8 if bits == 8 else np.uint16)
        planes = Page(samples, photometric, planar=True, extra=extra, strip_rows=7)
        neighbors = Page(samples, photometric, extra=extra)
        assert np.array_equal(decode(tiff_file(planes)), decode(tiff_file(neighbors))), (channels, photometric, extra)


@pytest.mark.parametrize("opaque", [4095, 65_535])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_12_bits_with_transparency(mode: str, opaque: int):
    shown = GRAY if mode == "LA" else COLOR
    samples = with_alpha(deep(shown, 12), opaque)
    samples[:, :10, -1] = 0
    photometric = 1 if mode == "LA" else 2
    for data in (png_file(samples, mode, 16), tiff_file(Page(samples, photometric, extra=(2,)))):
        image = decode(data)
        assert not image[:, :10].any()
        assert np.array_equal(image[:, 10:], np.broadcast_to(shown, COLOR.shape)[:, 10:])
        assert probe(data).mode == mode


def test_transparency_of_16_bits_is_mixed_with_black():
    samples = with_alpha(np.full((32, 32, 3), 60_000, np.uint16), 32_768)
    samples[0, 0, 3] = 65_535
    image = decode(png_file(samples, "RGBA", 16))
    assert abs(int(image[9, 9, 0]) - 60_000 / 257 * 32_768 / 65_535) <= 1
    assert image[0, 0, 0] == 233  # 60,000 / 257


def bmp32(samples: np.ndarray) -> bytes:
    """A BMP with a mask for transparency, from blue, green, red and alpha."""
    height, width = samples.shape[:2]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 56, width, -height, 1, 32, 3, 0, 0, 0, 0, 0) + masks
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + samples.size, 0, 0, 14 + len(head)) + head + samples.tobytes()


def invisible_files(shown: np.ndarray) -> dict[str, bytes]:
    """The picture in files that call each of its pixels transparent."""
    bare = with_alpha(shown, 0)
    gray = with_alpha(shown[..., :1], 0)
    palette = Image.fromarray(shown).quantize(256)
    return {
        "png": encode(Image.fromarray(bare)),
        "webp": encode(Image.fromarray(bare), "WEBP", lossless=True, exact=True),
        "tiff": tiff_file(Page(bare, 2, extra=(2,))),
        "planar tiff": tiff_file(Page(bare, 2, planar=True, extra=(2,))),
        "premultiplied tiff": tiff_file(Page(bare, 2, extra=(1,))),
        "deep png": png_file(bare.astype(np.uint16) * 257, "RGBA", 16),
        "deep tiff": tiff_file(Page(bare.astype(np.uint16) * 257, 2, extra=(2,))),
        "bmp": bmp32(bare[..., [2, 1, 0, 3]]),
        "gray png": encode(Image.fromarray(gray, "LA")),
        "deep gray png": png_file(gray.astype(np.uint16) * 257, "LA", 16),
        "palette png": encode(palette, "PNG", transparency=bytes(256)),
    }


@pytest.mark.parametrize("name", invisible_files(COLOR))
def test_a_picture_that_is_transparent_everywhere_is_shown(name: str):
    image = decode(invisible_files(COLOR)[name])
    expected = COLOR[..., :1] if "gray" in name else COLOR
    assert np.abs(image.astype(int) - expected).max() <= (24 if "palette" in name else 0)


def test_one_visible_pixel_leaves_the_others_transparent():
    samples = with_alpha(COLOR, 0)
    samples[20, 30, 3] = 255
    for data in (encode(Image.fromarray(samples)), bmp32(samples[..., [2, 1, 0, 3]])):
        image = decode(data)
        assert image[20, 30].tolist() == COLOR[20, 30].tolist()
        assert np.count_nonzero(image.any(axis=2)) == 1


def test_a_transparent_color_is_compared_in_16_bits():
    samples = deep(COLOR, 16)
    samples[:10] = (1000, 2000, 3000)
    samples[10:20] = (1000, 2000, 3001)
    data = png_file(samples, "RGB", 16, extra=chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    image = decode(data)
    assert not image[:10].any()
    assert image[10, 0].tolist() == [4, 8, 12]
    gray = np.full((32, 32, 1), 500, np.uint16)
    gray[0, 0] = 65_535
    everywhere = png_file(gray[1:], "L", 16, extra=chunk(b"tRNS", struct.pack(">H", 500)))
    assert (decode(everywhere) == 125).all(), "500 of 1,023, as if nothing were transparent"
    some = decode(png_file(np.tile(gray, (1, 2, 1)), "L", 16, extra=chunk(b"tRNS", struct.pack(">H", 500))))
    assert some[0, 0].tolist() == [255] * 3
    assert not some[5].any()


def test_fractions_are_refused_with_advice():
    with pytest.raises(ImageError, match=r"floating-point.*save it as an 8-bit") as refusal:
        decode(encode(Image.new("F", (32, 32), 0.5), "TIFF"))
    assert refusal.value.code == "image_mode_not_supported"


def test_memory_of_deep_pictures_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Six channels of 16 bits take twelve bytes a pixel."""
    samples = np.zeros((32, 32, 6), np.uint16)
    data = tiff_file(Page(samples, 2, extra=(2, 0, 0)))
    monkeypatch.setattr("lesion.imaging.limits.MAX_SAMPLE_BYTES", 12 * 32 * 32)
    assert decode(data).shape == (32, 32, 3)
    monkeypatch.setattr("lesion.imaging.limits.MAX_SAMPLE_BYTES", 12 * 32 * 32 - 1)
    with pytest.raises(TooLargeError, match="save it with 8 bits") as refusal:
        probe(data)
    assert refusal.value.code == "image_too_many_pixels"


def test_an_absurd_width_is_refused():
    for width, height in ((2**31, 48), (2**32 - 1, 2**32 - 1), (2**32 - 1, 1)):
        tags = {256: longs(width), 257: longs(height), 278: longs(height)}
        for samples in (deep(COLOR, 16), COLOR):
            with pytest.raises(TooLargeError):
                decode(tiff_file(Page(samples, 2, tags=tags)))


def test_deep_pixels_that_are_missing_are_refused():
    data = png_file(deep(COLOR, 16), "RGB", 16)
    place = data.index(b"IDAT")
    body = zlib.decompress(data[place + 4 : -16])
    short = chunk(b"IDAT", zlib.compress(body[:-400])) + chunk(b"IEND", b"")
    for bad in (data[: place - 4] + short, tiff_file(Page(deep(COLOR, 16), 2))[:-5000]):
        with pytest.raises(ImageError) as refusal:
            decode(bad)
        assert refusal.value.code == "image_truncated"
