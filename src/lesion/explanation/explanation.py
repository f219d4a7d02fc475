"""A heat map of one class with what can be said of it: where its heat lies, and what makes it doubtful."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lesion.explanation.foreground import foreground, has_background
from lesion.explanation.occlusion import GRID, OcclusionMap
from lesion.imaging import heatmap

Method = Literal["occlusion", "grad-cam"]
METHODS: tuple[Method, ...] = get_args(Method)
Doubt = Literal["no_effect", "outside_foreground", "coarse_grid"]

_LEAST_EFFECT = 1.0  # of the logarithm of the odds, which then fall to 37 % or less
_LEAST_SHARE = 0.5  # of the heat within the foreground
_LEAST_GRID = 7  # places per side


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """Where the answer for a class comes from.

    Attributes:
        class_name: The class.
        method: ``occlusion``: by how much covering each place lowers the class's odds. ``grad-cam``: the network's last
            activation, weighted for the class.
        heat: (S, S) in [0, 1], scaled to its own strongest place.
        grid: Rows and columns of places that the map tells apart.
        foreground_share: The share of the heat on what is pictured; None for an image without a dark background.
        doubts: Why the map says little. ``no_effect``: covering no one place changes the answer much.
            ``outside_foreground``: most heat lies on the dark background. ``coarse_grid``: fewer than 7 × 7 places.
        probability: The class's probability; None for Grad-CAM.
        covered_probability: The same with the most important square covered; None for Grad-CAM.
    """

    class_name: str
    method: Method
    heat: NDArray[np.float32]
    grid: tuple[int, int]
    foreground_share: float | None
    doubts: tuple[Doubt, ...]
    probability: float | None = None
    covered_probability: float | None = None

    @classmethod
    def of_occlusion(cls, class_name: str, image: NDArray[np.uint8], found: OcclusionMap) -> "Explanation":
        """Describe an occlusion map of an image, (S, S, 3)."""
        share = foreground_share(image, found.heat)
        doubts = _doubts(share, found.effect < _LEAST_EFFECT, GRID)
        probabilities = found.probability, found.covered_probability
        return cls(class_name, "occlusion", found.heat, (GRID, GRID), share, doubts, *probabilities)

    @classmethod
    def of_gradcam(cls, class_name: str, image: NDArray[np.uint8], cam: NDArray[np.float32]) -> "Explanation":
        """Describe a class activation map, (h, w), of an image, (S, S, 3)."""
        heat = heatmap.gradcam(cam, (image.shape[0], image.shape[1]))
        share = foreground_share(image, heat)
        return cls(class_name, "grad-cam", heat, cam.shape, share, _doubts(share, not heat.any(), min(cam.shape)))

    def overlay(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the map over the image that it explains, both (S, S, 3) uint8."""
        return heatmap.overlay(image, self.heat)

    @property
    def reliable(self) -> bool:
        """Whether nothing makes the map doubtful."""
        return not self.doubts


def _doubts(share: float | None, without_effect: bool, grid: int) -> tuple[Doubt, ...]:
    found: dict[Doubt, bool] = {
        "no_effect": without_effect,
        "outside_foreground": share is not None and share < _LEAST_SHARE and not without_effect,
        "coarse_grid": grid < _LEAST_GRID,
    }
    return tuple(doubt for doubt, holds in found.items() if holds)


def foreground_share(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> float | None:
    """Return the share of the heat, (S, S), on the foreground of an image, (S, S, 3); None if it is all foreground."""
    pictured = foreground(image)
    total = float(heat.sum())
    if not has_background(pictured) or not total:
        return None
    return float(heat[pictured].sum()) / total
