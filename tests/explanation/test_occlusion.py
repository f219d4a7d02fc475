"""Occlusion maps of networks whose answer is known: where they are hot, what they count, and how they are made."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion.explanation.localization import hottest_point
from lesion.explanation.occlusion import (
    GRID,
    PASSES,
    OcclusionMap,
    coarse_boxes,
    combine,
    cover,
    effects,
    fine_boxes,
    occlusion_map,
)
from tests.support.images.pictures import picture

SIZE = 96


class Spot:
    """Is sure of its class as far as the pixels of a square are as bright as they were."""

    def __init__(self, top: int, left: int, side: int = 10, size: int = SIZE) -> None:
        self.place = slice(top, top + side), slice(left, left + side)
        self.image = np.full((size, size, 3), 60, np.uint8)
        self.image[self.place] = 255
        self.passes = 0

    def odds(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        self.passes += len(images)
        brightness = images[:, *self.place].mean(axis=(1, 2, 3)) / 255
        positive = 1 / (1 + np.exp(-8 * (brightness - 0.5)))  # log-odds of 4, and of less where it is covered
        return np.stack([positive, 1 - positive], axis=1)

    def map(self) -> OcclusionMap:
        return occlusion_map(self.image, self.odds)


@pytest.mark.parametrize("size", [64, 96, 224])
@pytest.mark.parametrize("place", [(0.05, 0.05), (0.4, 0.7), (0.88, 0.5)])
def test_the_map_is_hottest_where_the_network_looks(size: int, place: tuple[float, float]) -> None:
    side = size // 10
    top, left = round(place[0] * size), round(place[1] * size)
    spot = Spot(top, left, side, size)
    found = spot.map()
    row, column = hottest_point(found.heat)
    assert abs(row - (top + side / 2)) <= size / GRID
    assert abs(column - (left + side / 2)) <= size / GRID
    assert spot.passes == PASSES + 1
    assert found.heat.shape == (size, size)
    assert (found.heat.min() >= 0, found.heat.max()) == (True, 1)


def test_what_the_strongest_square_did_is_told() -> None:
    spot = Spot(40, 64)
    found = spot.map()
    assert found.probability == pytest.approx(1 / (1 + np.exp(-4)))
    odds = found.covered_probability / (1 - found.covered_probability)
    assert found.effect == pytest.approx(4 - np.log(odds))
    assert found.covered_probability < 0.5


def test_a_network_that_looks_nowhere_gives_no_heat() -> None:
    found = occlusion_map(picture(0, SIZE), lambda images: np.full((len(images), 2), 0.5))
    assert not found.heat.any()
    assert (found.effect, found.probability, found.covered_probability) == (0, 0.5, 0.5)


def test_a_place_that_speaks_against_the_class_is_not_hot() -> None:
    spot = Spot(40, 64)
    found = occlusion_map(spot.image, lambda images: spot.odds(images)[:, ::-1])
    assert not found.heat.any()
    assert found.effect == 0


def test_large_squares_cover_everything_and_small_ones_the_places_of_largest_effect() -> None:
    covered = np.zeros((SIZE, SIZE), int)
    for top, bottom, left, right in coarse_boxes(SIZE):
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    fallen = np.zeros(16)
    fallen[0] = 1.0  # the first: above, left, up to row and column 31
    fine = fine_boxes(SIZE, fallen)
    assert fine.shape == (24, 4)
    middles = (fine[:, 0::2] + fine[:, 1::2]) / 2
    assert ((middles <= 31).all(axis=1)).sum() == 16


def test_a_cover_leaves_the_rest() -> None:
    image = picture(1, SIZE)
    [covered] = cover(image, np.array([[8, 24, 40, 56]]))
    rest = np.ones((SIZE, SIZE), bool)
    rest[8:24, 40:56] = False
    np.testing.assert_array_equal(covered[rest], image[rest])
    assert (covered[8:24, 40:56] != image[8:24, 40:56]).mean() > 0.9


@pytest.mark.parametrize("box", [(8, 24, 40, 56), (0, 16, 30, 46), (80, 96, 80, 96), (0, 20, 0, 20), (40, 56, 76, 96)])
def test_a_cover_goes_on_with_what_surrounds_it(box: tuple[int, int, int, int]) -> None:
    """A plain ground with a bright square is the plain ground again, also at the border of the image."""
    ground = np.full((SIZE, SIZE, 3), (30, 60, 90), np.uint8)
    image = ground.copy()
    image[box[0] : box[1], box[2] : box[3]] = 255
    np.testing.assert_array_equal(cover(image, np.array([box]))[0], ground)


def test_a_cover_at_the_border_draws_nothing_into_the_dark() -> None:
    """A bright disk ends before the border: what was background stays dark, and the disk's rim is covered."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    disk = (rows - 48) ** 2 + (columns - 48) ** 2 <= 40**2
    image = np.repeat(np.where(disk, np.uint8(200), np.uint8(0))[..., None], 3, 2)
    box = np.array([[40, 56, 76, 96]])
    [covered] = cover(image, box)
    assert covered[40:56, 92:].max() < 50
    assert covered[40:56, 76:80].mean() > 120


def test_heat_lies_on_what_is_pictured_also_at_its_rim() -> None:
    """The network looks at the rim of a disk; the cells of the map reach beyond it, and the heat does not."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    disk = (rows - 48) ** 2 + (columns - 48) ** 2 <= 40**2
    image = np.repeat(np.where(disk, np.uint8(200), np.uint8(0))[..., None], 3, 2)

    def odds(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        positive = 1 / (1 + np.exp(-8 * (images[:, 40:56, 80:90].mean(axis=(1, 2, 3)) / 200 - 0.5)))
        return np.stack([positive, 1 - positive], axis=1)

    heat = occlusion_map(image, odds).heat
    row, column = hottest_point(heat)
    assert disk[round(row), round(column)]
    assert heat[disk].sum() > 0.5 * heat.sum()


def test_a_cover_follows_a_slope_of_the_ground() -> None:
    slope = np.repeat(np.repeat(np.arange(SIZE, dtype=np.uint8)[:, None], SIZE, 1)[..., None], 3, 2)
    [covered] = cover(slope, np.array([[40, 56, 40, 56]]))
    assert np.abs(covered.astype(int) - slope).max() <= 2


def test_heat_counts_where_the_covers_change_the_picture() -> None:
    """The network looks at the mean of a square whose left half is black, as is what surrounds it."""
    spot = Spot(40, 40, 16)
    spot.image[:] = 0
    spot.image[40:56, 48:56] = 255
    heat = spot.map().heat
    assert heat[44:52, 52].min() > 1.5 * heat[44:52, 40].max()


def test_effects_are_falls_of_the_log_odds() -> None:
    before, after = np.array([[0.8, 0.2]]), np.array([[0.5, 0.5], [0.9, 0.1], [0.8, 0.2], [1e-40, 1.0]])
    np.testing.assert_allclose(effects(before, after), [np.log(4), 0, 0, np.log(4) + 30 * np.log(10)], atol=1e-9)


def test_heat_is_the_small_squares_mean_times_the_root_of_the_large_ones() -> None:
    """Every large square lowers the log-odds by 4, and every small one by its number of the row of places."""
    board = (255 * (np.indices((SIZE, SIZE)).sum(axis=0) % 2)).astype(np.uint8)  # every cover changes all of it
    image = np.repeat(board[..., None], 3, 2)
    boxes = fine_boxes(SIZE, np.zeros(16))  # without effects the first places: the upper two rows of twelve
    rows = np.arange(24) // GRID
    before = np.array([[0.5, 0.5]])
    coarse = np.repeat([[np.exp(-4.0), 1.0]], 16, axis=0)
    fine = np.stack([np.exp(-rows.astype(float)), np.ones(24)], axis=1)
    heat = combine(image, before, coarse, boxes, fine).heat
    # The squares of 16 pixels reach half a cell of 8 into the neighboring cells: the lower half of the first cell and
    # the upper half of the second are covered by squares of effects 0 and 1. No small square covers the lower half of
    # the third cell and all below: the least heat, 0, stands for theirs.
    cells = np.array([(0 + 0.5) / 2, (0.5 + 1) / 2, (1 + 0) / 2, 0])
    expected = np.interp(np.arange(28) + 0.5, 4 + 8 * np.arange(4), cells)
    np.testing.assert_allclose(heat[:28, 48], expected / expected.max(), atol=1e-3)
    np.testing.assert_array_equal(heat[28:], 0)
