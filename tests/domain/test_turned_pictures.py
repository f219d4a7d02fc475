"""Descriptions of turned pictures, against turning the picture; and what the discriminant learns from upright ones."""

import numpy as np
import pytest

from lesion.domain.reduction import reduce_pictures
from lesion.domain.turned_pictures import TURNS, WIDTH, OrientationDiscriminant, describe_orientation, turned
from tests.support.images.pictures import picture

MOVES = {
    "upside_down": lambda images: images[:, ::-1],
    "quarter_left": lambda images: np.rot90(images, 1, (1, 2)),
    "quarter_right": lambda images: np.rot90(images, -1, (1, 2)),
    "mirrored": lambda images: images[:, :, ::-1],
}


def describe(images: np.ndarray) -> np.ndarray:
    return describe_orientation(reduce_pictures(images))


def lit_from_above(seed: int, side: int = 96) -> np.ndarray:
    """A pattern over a ground that is bright above and dark below."""
    ground = np.linspace(160, 0, side)[:, None, None]
    return (ground + picture(seed, side) * 0.35).astype(np.uint8)


@pytest.mark.parametrize("turn", MOVES)
@pytest.mark.parametrize("side", [48, 96, 240, 256, 260])
def test_a_turned_description_is_that_of_the_turned_picture(turn: str, side: int) -> None:
    pictures = np.stack([picture(seed, side) for seed in range(3)])
    expected = describe(np.ascontiguousarray(MOVES[turn](pictures)))
    np.testing.assert_allclose(turned(describe(pictures), turn), expected, atol=1e-5)


@pytest.mark.parametrize("side", [16, 32, 100, 301])
def test_every_size_has_a_finite_description(side: int) -> None:
    pictures = np.stack([picture(0, side), np.full((side, side, 3), 255, np.uint8)])
    descriptions = describe(pictures)
    assert descriptions.shape == (2, WIDTH)
    assert np.isfinite(descriptions).all()
    np.testing.assert_allclose(descriptions[1], 0, atol=1e-4)  # a blank picture has neither edges nor a layout


def test_an_edge_points_from_dark_to_bright() -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    image[48:] = 255  # bright below: the gradient points down, a quarter of a turn from right
    strengths = describe(image[None])[0, : 8 * 64].reshape(8, 64).sum(axis=1)
    assert strengths.argmax() == 2
    np.testing.assert_allclose(strengths[[1, 3]], strengths[2] * np.sqrt(0.5), rtol=1e-4)
    np.testing.assert_allclose(strengths[[0, 4, 5, 6, 7]], 0, atol=1e-4)


def test_turned_pictures_are_told_from_upright_ones() -> None:
    training, others = (np.stack([lit_from_above(seed) for seed in seeds]) for seeds in (range(150), range(150, 200)))
    discriminant = OrientationDiscriminant.fit(describe(training))
    upright = discriminant(describe(others))
    assert np.median(upright) < -0.5
    for turn in TURNS:
        assert (discriminant(turned(describe(others), turn)) > upright.max()).mean() > 0.9, turn
    mirrored = discriminant(turned(describe(others), "mirrored"))
    assert (mirrored <= upright.max()).mean() > 0.9  # not told from others, as the module says


def test_pictures_without_an_upright_side_are_not_called_turned() -> None:
    training, others = (np.stack([picture(seed, 96) for seed in seeds]) for seeds in (range(150), range(150, 250)))
    discriminant = OrientationDiscriminant.fit(describe(training))
    border = np.quantile(discriminant(describe(others)), 0.95)
    for turn in TURNS:
        assert (discriminant(turned(describe(others), turn)) > border).mean() < 0.2, turn
