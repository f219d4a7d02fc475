"""Where the heat of maps lies: on what is pictured, and on the masks of lesions where there are some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lesion.explanation.foreground import foreground, has_background
from lesion.explanation.localization import distance_to_mask, hottest_point, overlap, share_inside

NEAR = 15 / 224  # of the image's side: how far from a mask the hottest point may lie, as in the pointing game
_QUANTILE = 1.959964  # of the normal distribution, for 95 %
_RESAMPLES = 1000

Maps = NDArray[np.float32]  # (N, S, S) in [0, 1]
Mask = NDArray[np.bool_]  # (S, S)


class Mean(NamedTuple):
    """A mean over images, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the heat of one method's maps lies, on the images of one class or of all."""

    method: str
    label: str  # empty for all classes
    images: int
    # The share of images whose hottest point lies on what is pictured; None if no image has a dark background.
    on_foreground: Mean | None
    masks: int  # images whose lesion is known; without any, the rest is None
    near_mask: Mean | None  # the share of images whose hottest point lies within 15 pixels (of 224) of the lesion
    overlap: Mean | None  # intersection over union of the lesion and as many of the hottest pixels
    inside: Mean | None  # the share of the heat inside the lesion


def placements(
    maps: Mapping[str, Maps],
    images: NDArray[np.uint8],
    masks: Sequence[Mask | None],
    labels: Sequence[str],
    groups: Sequence[int],
) -> list[Placement]:
    """Measure maps by method, over all images and those of each class.

    Intervals of shares are Wilson's, with as many trials as there are groups, and those of means are a bootstrap of
    groups.

    Args:
        maps: N maps of each method.
        images: ``(N, S, S, 3)``, that the maps explain.
        masks: Where each image's lesion is; None without a known one.
        labels: The class of each image.
        groups: Images with one number belong together, such as those of a patient.
    """
    pictured = [foreground(image) for image in images]
    rows = []
    for method, heats in maps.items():
        facts = [_facts(*each) for each in zip(heats, pictured, masks, strict=True)]
        for label in ("", *sorted(set(labels))):
            chosen = [place for place, other in enumerate(labels) if label in ("", other)]
            among = [facts[place] for place in chosen], [groups[place] for place in chosen]
            rows.append(_summary(method, label, *among))
    return rows


class _Facts(NamedTuple):
    on_foreground: bool | None
    near_mask: bool | None
    overlap: float | None
    inside: float | None


def _facts(heat: NDArray[np.float32], pictured: Mask, mask: Mask | None) -> _Facts:
    has_heat = bool(heat.any())
    on_foreground = None
    if has_background(pictured):
        row, column = (round(value) for value in hottest_point(heat))
        on_foreground = has_heat and bool(pictured[row, column])
    if mask is None or not mask.any():
        return _Facts(on_foreground, None, None, None)
    if not has_heat:
        return _Facts(on_foreground, False, 0.0, 0.0)
    near = distance_to_mask(heat, mask) <= NEAR * len(heat)
    return _Facts(on_foreground, near, overlap(heat, mask), share_inside(heat, mask))


def _summary(method: str, label: str, facts: Sequence[_Facts], groups: Sequence[int]) -> Placement:
    columns = [
        [(value, group) for value, group in zip(values, groups, strict=True) if value is not None]
        for values in zip(*facts, strict=True)
    ]
    on_foreground, near, overlaps, inside = columns
    return Placement(
        method, label, len(facts), _share(on_foreground), len(near), _share(near), _mean(overlaps), _mean(inside)
    )


def _share(values: Sequence[tuple[float, int]]) -> Mean | None:
    if not values:
        return None
    share, count = float(np.mean([value for value, _ in values])), len({group for _, group in values})
    spread = _QUANTILE**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _QUANTILE * np.sqrt(share * (1 - share) / count + spread / 4 / count) / (1 + spread)
    return Mean(share, float(max(middle - half, 0)), float(min(middle + half, 1)))


def _mean(values: Sequence[tuple[float, int]]) -> Mean | None:
    if not values:
        return None
    numbers, names = np.array([value for value, _ in values]), np.array([group for _, group in values])
    members = [numbers[names == name] for name in np.unique(names)]
    sums, counts = np.array([each.sum() for each in members]), np.array([len(each) for each in members])
    drawn = np.random.default_rng(0).integers(len(members), size=(_RESAMPLES, len(members)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return Mean(float(numbers.mean()), float(low), float(high))
