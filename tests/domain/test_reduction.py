"""Pictures reduced, against Pillow."""

import numpy as np
import pytest
from PIL import Image

from lesion.domain.reduction import area_means, gray_levels, reduce_pictures
from tests.support.images.pictures import picture


@pytest.mark.parametrize(
    ("side", "reduced"), [(16, 16), (48, 48), (95, 95), (96, 48), (224, 56), (256, 64), (300, 50), (331, 331)]
)
def test_sides(side: int, reduced: int) -> None:
    assert reduce_pictures(picture(0, side)[None]).shape == (1, reduced, reduced, 3)


def test_a_reduced_pixel_is_the_mean_of_its_block() -> None:
    image = picture(0, 96)
    expected = image.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(reduce_pictures(image[None])[0] - expected).max() <= 0.5


def test_gray_is_that_of_pillow() -> None:
    image = picture(0, 48)
    expected = np.asarray(Image.fromarray(image).convert("L"), float)
    assert np.abs(gray_levels(image[None])[0] - expected).max() <= 1.01


@pytest.mark.parametrize(("side", "parts"), [(48, 6), (52, 6), (56, 48), (16, 48)])
def test_means_of_cells_are_those_of_pillow(side: int, parts: int) -> None:
    values = np.random.default_rng(0).random((2, side, side)).astype(np.float32)
    for found, image in zip(area_means(values, parts), values, strict=True):
        expected = np.asarray(Image.fromarray(image).resize((parts, parts), Image.Resampling.BOX))
        if side % parts == 0:
            np.testing.assert_allclose(found, expected, atol=1e-5)
        else:  # Pillow counts each pixel wholly or not at all
            assert found.mean() == pytest.approx(image.mean(), rel=1e-4)
            assert np.abs(found - expected).mean() < 0.2
