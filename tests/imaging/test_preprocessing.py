"""Fitting images into the network's square."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import ConfigError, ImageError
from lesion.imaging.decode import decode
from lesion.imaging.limits import Limits
from lesion.imaging.preprocessing import Fit, Preprocessing, content_box
from tests.support.images.hostile import encode, gradient

WHITE = np.full((32, 64, 3), 255, np.uint8)


def halves(height: int, width: int) -> np.ndarray:
    """Left half red, right half blue."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    image[:, width // 2 :, 2] = 255
    return image


def test_pad_keeps_the_proportions_and_fills_with_black():
    fitted = Preprocessing(32)(WHITE)  # 64 × 32 becomes 32 × 16, with 8 rows of black above and below
    assert fitted.shape == (32, 32, 3)
    assert not fitted[:8].any()
    assert not fitted[24:].any()
    assert (fitted[8:24] == 255).all()
    upright = Preprocessing(32)(WHITE.swapaxes(0, 1))
    assert np.array_equal(upright, fitted.swapaxes(0, 1))


def test_pad_of_an_odd_remainder_puts_the_extra_row_below():
    fitted = Preprocessing(33)(WHITE)  # 64 × 32 becomes 33 × 16 (16.5 is rounded to even): 8 above, 9 below
    assert np.flatnonzero(fitted[:, 0, 0]).tolist() == list(range(8, 24))


def test_pad_enlarges_small_images():
    fitted = Preprocessing(64)(np.full((16, 16, 3), 7, np.uint8))
    assert (fitted == 7).all()


def test_crop_takes_the_middle_square():
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 200
    fitted = Preprocessing(32, "crop")(image)
    assert (fitted == 200).all()
    noise = np.random.default_rng(0).integers(0, 256, (64, 192, 3), np.uint8)
    whole = Image.fromarray(noise).resize((96, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(Preprocessing(32, "crop")(noise), np.asarray(whole)[:, 32:64])


def test_stretch_uses_the_whole_image():
    fitted = Preprocessing(32, "stretch")(halves(32, 256))
    assert (fitted[:, :15] == (255, 0, 0)).all()
    assert (fitted[:, 17:] == (0, 0, 255)).all()


def scan(height: int = 256, width: int = 256) -> np.ndarray:
    """A bright head in a dark, noisy margin: rows 64 to 191 and columns 32 to 223 of 256."""
    image = np.random.default_rng(0).integers(0, 12, (256, 256, 3), np.uint8)
    image[64:192, 32:224] = 150
    image[3, 5] = 255  # a speck of dust
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def test_dark_margins_are_cut_off():
    assert content_box(scan()) == (32, 64, 224, 192)
    assert content_box(scan(512, 128)) == (16, 128, 112, 384)
    fitted = Preprocessing(96, trim=True)(scan())  # 192 × 128 becomes 96 × 64
    assert (fitted[16:80] == 150).all()
    assert not fitted[:16].any()
    assert (Preprocessing(64, "stretch", trim=True)(scan()) == 150).all()


def test_an_image_without_dark_margins_stays_whole():
    for image in (WHITE, WHITE * 0, halves(40, 30), np.full((16, 16, 3), 9, np.uint8)):
        height, width = image.shape[:2]
        assert content_box(image) == (0, 0, width, height)
    spot = np.zeros((256, 256, 3), np.uint8)
    spot[100:120, 60:200] = 255  # not a picture in a margin: to show it alone would enlarge it sevenfold
    assert content_box(spot) == (0, 0, 256, 256)


def test_trimming_a_large_jpeg_keeps_its_detail():
    board = np.zeros((1024, 1024, 3), np.uint8)
    board[256:768, 256:768] = (np.indices((512, 512)).sum(0) // 4 % 2 * 255).astype(np.uint8)[..., None]
    fitted = Preprocessing(256, trim=True).read(encode(Image.fromarray(board), "JPEG", quality=95))
    assert fitted.std() > 90  # decoded at a quarter of its size, it would be grey


def test_resizing_is_antialiased():
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    for interpolation in ("bilinear", "bicubic"):
        fitted = Preprocessing(32, "stretch", interpolation)(board)
        assert np.abs(fitted.astype(int) - 127).max() <= 2, "a fine chessboard is grey from afar"


def test_an_image_of_the_right_size_is_copied():
    image = gradient(48, 48)
    for fit in ("pad", "crop", "stretch"):
        fitted = Preprocessing(48, fit)(image)
        assert np.array_equal(fitted, image)
        assert not np.shares_memory(fitted, image)


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(16, 100_000), (100_000, 16), (17, 16), (500, 333)])
def test_every_shape_gives_a_writable_square(fit: Fit, shape: tuple[int, int]):
    fitted = Preprocessing(224, fit)(np.full((*shape, 3), 90, np.uint8))
    assert fitted.shape == (224, 224, 3)
    assert fitted.dtype == np.uint8
    assert fitted.flags.writeable
    assert fitted.flags.c_contiguous
    assert (fitted[111, 111] == 90).all()


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_read_drafts_large_photos_with_hardly_a_difference(fit: Fit):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
    data = encode(coarse.resize((2000, 1500), Image.Resampling.BICUBIC), "JPEG", quality=90)
    preprocessing = Preprocessing(224, fit)
    read, exact = preprocessing.read(data), preprocessing(decode(data))
    assert decode(data, target_side=224).shape == (750, 1000, 3), "the draft is taken"
    assert read.shape == exact.shape
    difference = np.abs(read.astype(int) - exact)
    assert difference.mean() < 0.7
    assert difference.max() <= 12


def test_read_respects_limits():
    with pytest.raises(ImageError) as refusal:
        Preprocessing().read(encode(gradient()), Limits(max_pixels=100))
    assert refusal.value.code == "image_too_many_pixels"


def test_dictionary_round_trip():
    preprocessing = Preprocessing(160, "crop", "bilinear")
    settings = {"size": 160, "fit": "crop", "interpolation": "bilinear", "trim": False}
    assert preprocessing.to_dict() == {**settings, "decoder": 3}
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    assert Preprocessing.from_dict({}) == Preprocessing(224, "pad", "bicubic")
    assert Preprocessing.from_dict(preprocessing.to_dict()).decoder == 3
    assert Preprocessing.from_dict(settings).decoder == 1, "stored before the decoder had versions"


@pytest.mark.parametrize(
    "values",
    [{"size": 0}, {"size": 8192}, {"size": "224"}, {"size": True}, {"size": 224.0}, {"fit": "squash"}, {"fit": None},
     {"interpolation": "nearest"}, {"trim": "yes"}, {"decoder": 0}, {"mean": [0.5]}],
)  # fmt: skip
def test_bad_settings_are_refused(values: dict[str, Any]):
    with pytest.raises(ConfigError) as refusal:
        Preprocessing.from_dict(values)
    assert next(iter(values)) in refusal.value.message


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("trim", [False, True])
def test_a_mask_is_fitted_as_its_image_is(fit: Any, trim: bool):
    image = np.zeros((90, 150, 3), np.uint8)
    image[5:85, 30:140] = 70
    image[30:60, 60:90] = 255
    preprocessing = Preprocessing(64, fit, "bilinear", trim)
    mask, bright = preprocessing.fit_mask(image[..., 0] > 200, image), preprocessing(image)[..., 0] > 162
    assert mask.shape == (64, 64)
    assert (mask & bright).sum() / (mask | bright).sum() > 0.95
    assert preprocessing.fit_mask(np.zeros((90, 150), bool), image).sum() == 0
