"""Where the heat of maps lies, on images whose answers are known."""

import numpy as np
import pytest

from lesion.explanation.heat_locations import Mean, _mean, _share, placements

SIDE = 56  # a quarter of 224: within 15 pixels is within 3.75 here


def disk(row: int, column: int, radius: int = 4) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def head() -> np.ndarray:
    """A bright disk on black."""
    return np.repeat(np.where(disk(28, 28, 20), np.uint8(200), np.uint8(0))[..., None], 3, axis=2)


def at(row: int, column: int) -> np.ndarray:
    """A map whose hottest point is here."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray(np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 50), np.float32)


def test_hits_and_misses_are_counted_by_class() -> None:
    images = np.stack([head()] * 4)
    masks = [disk(20, 20), disk(36, 36), None, np.zeros((SIDE, SIDE), bool)]
    maps = {"good": np.stack([at(20, 20), at(36, 43), at(28, 28), at(28, 28)]), "bad": np.stack([at(2, 2)] * 4)}
    rows = {
        (row.method, row.label): row
        for row in placements(maps, images, masks, ["b", "b", "a", "a"], [1, 2, 3, 3])
    }  # fmt: skip
    assert list(rows) == [(method, label) for method in maps for label in ("", "a", "b")]
    good = rows["good", ""]
    assert (good.images, good.masks) == (4, 2)
    assert good.on_foreground is not None
    assert good.on_foreground.value == 1
    assert good.near_mask is not None
    assert good.near_mask.value == 1  # 43 lies 3 pixels below the disk, 3.75 are allowed
    assert good.overlap is not None
    assert 0.3 < good.overlap.value < 1
    assert rows["good", "a"].masks == 0
    assert rows["good", "a"].near_mask is rows["good", "a"].overlap is rows["good", "a"].inside is None
    bad = rows["bad", "b"]
    assert [mean.value for mean in (bad.on_foreground, bad.near_mask, bad.overlap) if mean] == [0, 0, 0]


def test_a_point_beyond_the_distance_is_a_miss() -> None:
    for column, hit in ((43, 1.0), (44, 0.0)):
        [row, _] = placements({"m": at(36, column)[None]}, head()[None], [disk(36, 36, 4)], ["b"], [1])
        assert row.near_mask is not None
        assert row.near_mask.value == hit, column


def test_a_map_without_heat_misses_and_an_image_without_background_says_nothing() -> None:
    empty = np.zeros((1, SIDE, SIDE), np.float32)
    [row, _] = placements({"m": empty}, head()[None], [disk(28, 28)], ["b"], [1])
    assert [mean.value for mean in (row.on_foreground, row.near_mask, row.overlap, row.inside) if mean] == [0] * 4
    everything = np.full((1, SIDE, SIDE, 3), 120, np.uint8)
    [row, _] = placements({"m": at(2, 2)[None]}, everything, [None], ["b"], [1])
    assert row.on_foreground is None
    assert row.masks == 0


def test_intervals_count_groups_and_not_images() -> None:
    # Wilson's interval of 8 of 10, as in Brown, Cai and DasGupta (2001): (p + z²/2n ± z √(pq/n + z²/4n²)) / (1 + z²/n)
    ten = [(float(n < 8), n) for n in range(10)]
    assert _share(ten) == pytest.approx((0.8, 0.4901625, 0.9433178), abs=1e-6)
    assert _share([pair for pair in ten for _ in range(5)]) == pytest.approx(_share(ten))
    assert _share([]) is None
    same = _mean([(0.5, n // 4) for n in range(40)])
    assert same == Mean(0.5, 0.5, 0.5)
    spread = [_mean([(float(n % 2), n) for n in range(40)]), _mean([(float(n >= 20), n // 20) for n in range(40)])]
    assert spread[0] is not None
    assert spread[1] is not None
    assert spread[0].high - spread[0].low < spread[1].high - spread[1].low == 1
