"""Soft shapes and random fields on a pixel grid: what the phantoms are painted with."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]  # float32 in fact: NumPy's stubs take the product with a Python float for float64


class Waves(NamedTuple):
    """Plane waves whose sum is a stationary random field, smooth in all three dimensions.

    A sum has no grid of its own, so that neighbouring slices of one patient cut the same folds at any image size.
    """

    vectors: NDArray[np.float32]
    phases: NDArray[np.float32]


def sample_waves(rng: np.random.Generator, count: int, shortest: float, longest: float) -> Waves:
    """Draws ``count`` waves in random directions with wavelengths between the two bounds (head units)."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(shortest, longest, size=(count, 1))
    phases = rng.uniform(0, 2 * np.pi, size=count)
    return Waves((2 * np.pi / lengths * directions).astype(np.float32), phases.astype(np.float32))


def field(waves: Waves, x: Plane, y: Plane, z: float) -> Plane:
    """The random field of ``waves`` on one slice: zero mean, unit variance, float32 of the shape of ``x``."""
    total, wave, part = np.zeros_like(x), np.empty_like(x), np.empty_like(x)
    for (kx, ky, kz), phase in zip(waves.vectors, waves.phases, strict=True):  # in place: this is the hot loop
        np.multiply(x, kx, out=wave)
        wave += np.multiply(y, ky, out=part)
        wave += kz * z + phase
        total += np.cos(wave, out=wave)
    return total * math.sqrt(2 / len(waves.phases))


def norm(x: Plane, y: Plane) -> Plane:
    """Length of (x, y); several times faster than ``np.hypot``, whose care for overflow is not needed here."""
    return np.sqrt(x * x + y * y)


def soft(distance: Plane, width: float) -> Plane:
    """Opacity of a shape from the signed distance to its edge: 0 outside, 1 inside, a ramp of ``width`` between."""
    opacity: Plane = np.clip(distance * (1 / width) + 0.5, 0, 1)
    return opacity


def bump(value: float, low: float, high: float, ramp: float) -> float:
    """1 between ``low`` and ``high``, 0 farther than ``ramp`` outside, linear between: where along z a part exists."""
    return float(np.clip(min(value - low, high - value) / ramp + 1, 0, 1))


def paint(image: Plane, opacity: Plane, value: Plane | float) -> None:
    """Blends ``value`` into ``image`` in place."""
    image += opacity * (np.asarray(value, dtype=np.float32) - image)


def ellipse(x: Plane, y: Plane, centre: tuple[float, float], radii: tuple[float, float]) -> Plane:
    """Approximate signed distance to an axis-parallel ellipse, positive inside."""
    scaled = norm((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return (1 - scaled) * min(radii)


def capsule(x: Plane, y: Plane, start: tuple[float, float], end: tuple[float, float], radius: float) -> Plane:
    """Signed distance to a line segment with round ends, positive inside."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
    return radius - norm(px - along * dx, py - along * dy)
