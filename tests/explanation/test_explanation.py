"""What is said of a heat map: its share on the foreground, and its doubts."""

from dataclasses import replace

import numpy as np
import pytest

from lesion.explanation.explanation import Explanation, foreground_share
from lesion.explanation.foreground import foreground
from lesion.explanation.occlusion import OcclusionMap
from tests.support.images.pictures import picture

SIZE = 96


def head() -> np.ndarray:
    """A bright disk with a dark hole, on black."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
    radius = np.hypot(x, y)
    return np.repeat(np.where((radius < 30) & (radius > 8), 180, 0)[..., None], 3, 2).astype(np.uint8)


def heat_at(rows: slice, columns: slice) -> np.ndarray:
    heat = np.zeros((SIZE, SIZE), np.float32)
    heat[rows, columns] = 1
    return heat


INSIDE, OUTSIDE = heat_at(slice(40, 50), slice(40, 50)), heat_at(slice(0, 10), slice(0, 10))
FOUND = OcclusionMap(INSIDE, 3.0, 0.98, 0.7)


def test_the_foreground_is_what_lies_between_the_dark_borders() -> None:
    image = head()
    pictured = foreground(image)
    assert pictured[SIZE // 2, SIZE // 2]  # the hole inside
    assert not pictured[2, 2]
    assert pictured.mean() == pytest.approx(np.pi * 30**2 / SIZE**2, abs=0.01)


@pytest.mark.parametrize(("heat", "share"), [(INSIDE, 1.0), (OUTSIDE, 0.0), ((INSIDE + OUTSIDE) / 2, 0.5)])
def test_the_share_of_heat_on_the_foreground(heat: np.ndarray, share: float) -> None:
    assert foreground_share(head(), heat) == pytest.approx(share)


def test_an_image_without_a_dark_background_has_no_share() -> None:
    assert foreground_share(picture(0, SIZE) // 2 + 100, INSIDE) is None
    assert foreground_share(head(), np.zeros((SIZE, SIZE), np.float32)) is None


def test_a_map_inside_with_an_effect_is_reliable() -> None:
    explanation = Explanation.of_occlusion("glioma", head(), FOUND)
    assert (explanation.method, explanation.grid, explanation.reliable) == ("occlusion", (12, 12), True)
    assert (explanation.probability, explanation.covered_probability) == (0.98, 0.7)
    assert explanation.foreground_share == 1.0


@pytest.mark.parametrize(
    ("changes", "doubts"),
    [
        ({"effect": 0.9}, ("no_effect",)),
        ({"heat": OUTSIDE}, ("outside_foreground",)),
        ({"heat": np.zeros((SIZE, SIZE), np.float32), "effect": 0.0}, ("no_effect",)),
    ],
)
def test_doubts_of_occlusion(changes: dict[str, object], doubts: tuple[str, ...]) -> None:
    explanation = Explanation.of_occlusion("glioma", head(), replace(FOUND, **changes))  # type: ignore[arg-type]
    assert (explanation.doubts, explanation.reliable) == (doubts, False)


@pytest.mark.parametrize(("grid", "doubts"), [(3, ("coarse_grid",)), (7, ())])
def test_a_coarse_grad_cam_is_doubtful(grid: int, doubts: tuple[str, ...]) -> None:
    cam = np.zeros((grid, grid), np.float32)
    cam[grid // 2, grid // 2] = 1
    explanation = Explanation.of_gradcam("glioma", head(), cam)
    assert (explanation.method, explanation.grid, explanation.doubts) == ("grad-cam", (grid, grid), doubts)
    assert explanation.probability is None


def test_a_grad_cam_of_nothing_has_no_effect() -> None:
    assert Explanation.of_gradcam("glioma", head(), np.full((8, 8), -1, np.float32)).doubts == ("no_effect",)
