"""The plain numbers of a picture, computed another way, and the distance between them."""

import numpy as np
import pytest

from lesion.domain.appearance import NUMBERS, AppearanceDistance, describe_appearance
from lesion.domain.reduction import reduce_pictures
from tests.support.images.pictures import picture


def describe(images: np.ndarray) -> np.ndarray:
    return describe_appearance(images, reduce_pictures(images))


@pytest.mark.parametrize("side", [16, 32, 48, 100, 224, 300])
def test_every_size_has_finite_numbers(side: int) -> None:
    pictures = np.stack([picture(0, side), np.zeros((side, side, 3), np.uint8)])
    numbers = describe(pictures)
    assert numbers.shape == (2, NUMBERS)
    assert np.isfinite(numbers).all()


def test_the_numbers_of_a_plain_color_are_known() -> None:
    orange = np.full((96, 96, 3), (200, 100, 50), np.uint8)
    numbers = describe(orange[None])[0]
    gray = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(numbers[:5], gray, rtol=1e-5)  # every quantile
    np.testing.assert_allclose(numbers[5:9], [100, 50, 100, 50], rtol=1e-5)  # differences of colors
    np.testing.assert_allclose(numbers[9:45], gray, rtol=1e-5)  # every cell
    np.testing.assert_allclose(numbers[45:47], 0, atol=1e-6)  # no edges
    np.testing.assert_allclose(numbers[47:], np.log(1e-2), atol=1e-3)  # no energy


def test_a_wave_has_its_energy_in_the_band_of_its_frequency() -> None:
    columns = np.arange(96)
    found = []
    for waves in (1, 3, 24):  # in the width of the picture
        gray = np.round(128 + 100 * np.sin(2 * np.pi * waves * columns / 96)).astype(np.uint8)
        image = np.broadcast_to(gray[None, :, None], (96, 96, 3))
        found.append(int(describe(image[None])[0, 47:].argmax()))
    assert found == [0, 1, 4]  # bands start at 1, 1.9, 3.6, 6.9, 13.2 and 25 waves, rounded to 1, 2, 4, 7, 13 and 25


def test_layout_follows_the_picture() -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    image[:16, 80:] = 240  # the last cell of the first row
    cells = describe(image[None])[0, 9:45].reshape(6, 6)
    expected = np.zeros((6, 6))
    expected[0, 5] = 240
    np.testing.assert_allclose(cells, expected, atol=1e-3)


def test_the_distance_is_the_mean_to_the_five_nearest() -> None:
    rng = np.random.default_rng(0)
    training = rng.normal(size=(50, NUMBERS)).astype(np.float32)
    numbers = rng.normal(size=(7, NUMBERS)).astype(np.float32)
    differences = (numbers[:, None] - training[None]) / (training.std(axis=0) + 1e-3)
    every = np.sort(np.linalg.norm(differences, axis=2), axis=1)
    np.testing.assert_allclose(AppearanceDistance.fit(training)(numbers), every[:, :5].mean(axis=1), rtol=1e-4)


def test_fewer_training_images_than_neighbors_are_all_taken() -> None:
    training = np.random.default_rng(0).normal(size=(3, NUMBERS)).astype(np.float32)
    distances = AppearanceDistance.fit(training)(training[:1])
    scaled = training / (training.std(axis=0) + 1e-3)
    expected = np.linalg.norm(scaled - scaled[:1], axis=1).mean()
    np.testing.assert_allclose(distances, expected, rtol=1e-3)


def test_of_many_training_images_400_are_kept() -> None:
    training = np.random.default_rng(0).normal(size=(1001, NUMBERS)).astype(np.float32)
    assert AppearanceDistance.fit(training).references.shape == (400, NUMBERS)
