"""Color profiles: the colors that a viewer shows, computed here from the definition of the color space."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lesion.imaging.decode import decode
from tests.support.images.hostile import chunk, encode, gradient
from tests.support.images.png_files import png_file
from tests.support.images.profiles import ADOBE, WIDE, adobe_rgb, gray_gamma, gray_inks, profile, wide_rgb
from tests.support.images.tiff_files import Page, tiff_file

COLOR = gradient()
# XYZ under D50 to linear sRGB (IEC 61966-2-1, adapted by Bradford).
TO_SRGB = np.array(
    [[3.1341359, -1.6173863, -0.4906619], [-0.978796, 1.9162543, 0.0334427], [0.0719553, -0.2289768, 1.4053851]]
)
INKS: tuple[tuple[list[int], float], ...] = (
    ([], 100),
    ([0], 66.67),
    ([0, 1], 33.33),
    ([3], 0),
)  # inks that are full, and the lightness
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def srgb_of(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def expected(samples: np.ndarray, matrix: tuple[tuple[float, float, float], ...], gamma: float) -> np.ndarray:
    xyz = (samples / 255.0) ** gamma @ np.array(matrix)
    return srgb_of(xyz @ TO_SRGB.T)


def with_profile(content: bytes) -> dict[str, bytes]:
    packed = chunk(b"iCCP", b"any\0\0" + zlib.compress(content))
    return {
        "png": encode(COLOR, icc_profile=content),
        "deep png": png_file(COLOR.astype(np.uint16) * 257, "RGB", 16, extra=packed),
        "png text": png_file(
            COLOR, "RGB", extra=chunk(b"tEXt", b"Raw profile type icc\0\nicc\n9\n" + content.hex().encode())
        ),
        "jpeg": encode(COLOR, "JPEG", quality=100, subsampling=0, icc_profile=content),
        "webp": encode(COLOR, "WEBP", lossless=True, icc_profile=content),
        "tiff": tiff_file(Page(COLOR, 2, tags={34675: (7, content)})),
        "planar tiff": tiff_file(Page(COLOR, 2, planar=True, tags={34675: (7, content)})),
        "palette png": encode(Image.fromarray(COLOR // 64 * 64).quantize(64), icc_profile=content),
    }


@pytest.mark.parametrize("kind", with_profile(b""))
@pytest.mark.parametrize(("content", "matrix", "gamma"), [(adobe_rgb(), ADOBE, 2.2), (wide_rgb(), WIDE, 1.8)])
def test_colors_become_srgb(kind: str, content: bytes, matrix: tuple[tuple[float, float, float], ...], gamma: float):
    data = with_profile(content)[kind]
    stored = decode(with_profile(b"")[kind])
    difference = np.abs(decode(data) - expected(stored, matrix, gamma))
    assert difference.max() <= 3
    assert np.abs(decode(data).astype(int) - stored).max() > 20, "it makes a difference"


def test_gray_becomes_srgb_gray():
    gray = COLOR[..., 0]
    for gamma in (1.0, 1.8, 2.6):
        image = decode(encode(gray, icc_profile=gray_gamma(gamma)))
        assert np.abs(image - srgb_of((gray / 255.0) ** gamma)[..., None]).max() <= 3
    deep = encode(gray.astype(np.uint16) * 257, icc_profile=gray_gamma(1.8))
    assert np.abs(decode(deep) - srgb_of((gray / 255.0) ** 1.8)[..., None]).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_become_srgb(kind: str):
    """The levels of gray are those of L* 100, 66.67, 33.33 and 0 (CIE 1976)."""
    inks = np.zeros((32, 32, 4), np.uint8)
    for row, (channels, _) in enumerate(INKS):
        inks[8 * row : 8 * row + 8][..., channels] = 255
    options: dict[str, object] = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    picture = Image.fromarray(inks, "CMYK")
    image = decode(encode(picture, kind, icc_profile=gray_inks(), **options))
    plain = decode(encode(picture, kind, **options))
    for row, (_, lightness) in enumerate(INKS):
        level = srgb_of(np.array(((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3))
        assert np.abs(image[8 * row + 4, 16] - level).max() <= 4
    assert plain[12, 16].tolist() == pytest.approx([0, 255, 255], abs=4)


def test_gray_with_a_color_profile():
    gray = COLOR[..., 0]
    image = decode(encode(gray, icc_profile=wide_rgb()))
    assert np.abs(image - expected(COLOR[..., [0, 0, 0]], WIDE, 1.8)).max() <= 3


def test_srgb_changes_nothing():
    for data in with_profile(SRGB).values():
        plain = [decode(one) for one in with_profile(b"").values()]
        assert any(np.array_equal(decode(data), one) for one in plain)


def test_transparency_is_blended_after_the_conversion():
    samples = np.dstack([COLOR, np.full(COLOR.shape[:2], 128, np.uint8)])
    image = decode(encode(Image.fromarray(samples), icc_profile=adobe_rgb()))
    assert np.abs(image - expected(COLOR, ADOBE, 2.2) * 128 / 255).max() <= 3


def test_a_profile_in_several_segments():
    content = profile(b"RGB ", {b"junk": bytes(150_000)} | _tags(wide_rgb()))
    data = encode(COLOR, "JPEG", quality=100, subsampling=0, icc_profile=content)
    assert data.count(b"ICC_PROFILE\0") == 3
    assert (
        np.abs(decode(data) - expected(decode(encode(COLOR, "JPEG", quality=100, subsampling=0)), WIDE, 1.8)).max() <= 3
    )


def _tags(content: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", content, 128)
    entries = [struct.unpack_from(">4sII", content, 132 + 12 * index) for index in range(count)]
    return {name: content[place : place + length] for name, place, length in entries}


def test_damaged_and_foreign_profiles_are_left_aside():
    good = adobe_rgb()
    bad = [good[:60], good[:200], b"\0" * 500, good.replace(b"rXYZ", b"none"), good[:128] + b"\xff" * 300]
    bad += [good[:12] + b"link" + good[16:], gray_gamma(1.8), profile(b"CMYK", {}), good.replace(b"acsp", b"acsq")]
    for content in bad:
        for kind, data in with_profile(content).items():
            assert np.array_equal(decode(data), decode(with_profile(b"")[kind])), kind
    broken = chunk(b"iCCP", b"a\0\0zzzz")
    assert np.array_equal(decode(png_file(COLOR, "RGB", extra=broken)), COLOR)
