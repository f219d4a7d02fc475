"""Soft shapes and random fields on a pixel grid, with which the phantoms are painted."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]  # in fact float32, but for NumPy's stubs its product with a Python float is float64


class Waves(NamedTuple):
    """Plane waves whose sum is a stationary random field, smooth in all three dimensions.

    A sum of waves has no grid, so that neighboring slices of one patient show the same folds at any image size.
    """

    vectors: NDArray[np.float32]
    phases: NDArray[np.float32]


def sample_waves(rng: np.random.Generator, count: int, shortest: float, longest: float) -> Waves:
    """Sample ``count`` waves in random directions with wavelengths between the two bounds (head units)."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(shortest, longest, size=(count, 1))
    phases = rng.uniform(0, 2 * np.pi, size=count)
    return Waves((2 * np.pi / lengths * directions).astype(np.float32), phases.astype(np.float32))


def field(waves: Waves, x: Plane, y: Plane, z: float) -> Plane:
    """Return the random field of ``waves`` on one slice: zero mean, unit variance, float32 of the shape of ``x``."""
    total, wave, part = np.zeros_like(x), np.empty_like(x), np.empty_like(x)
    for (kx, ky, kz), phase in zip(waves.vectors, waves.phases, strict=True):  # in place: this is the hot loop
        np.multiply(x, kx, out=wave)
        wave += np.multiply(y, ky, out=part)
        wave += kz * z + phase
        total += np.cos(wave, out=wave)
    return total * math.sqrt(2 / len(waves.phases))


def norm(x: Plane, y: Plane) -> Plane:
    """Return the length of (x, y), several times faster than ``np.hypot``, whose care for overflow is not needed."""
    return np.sqrt(x * x + y * y)


def soft(distance: Plane, width: float) -> Plane:
    """Return a shape's opacity from the signed distance to its edge: 0 outside, 1 inside, a ramp between."""
    opacity: Plane = np.clip(distance * (1 / width) + 0.5, 0, 1)
    return opacity


def bump(value: float, low: float, high: float, ramp: float) -> float:
    """Return how much of a part exists at a level: 1 from ``low`` to ``high``, then falling to 0 over ``ramp``."""
    return float(np.clip(min(value - low, high - value) / ramp + 1, 0, 1))


def paint(image: Plane, opacity: Plane, value: Plane | float) -> None:
    """Blend ``value`` into ``image`` in place."""
    image += opacity * (np.asarray(value, dtype=np.float32) - image)


def ellipse(x: Plane, y: Plane, center: tuple[float, float], radii: tuple[float, float]) -> Plane:
    """Return the approximate signed distance to an axis-parallel ellipse, positive inside."""
    scaled = norm((x - center[0]) / radii[0], (y - center[1]) / radii[1])
    return (1 - scaled) * min(radii)


def capsule(x: Plane, y: Plane, start: tuple[float, float], end: tuple[float, float], radius: float) -> Plane:
    """Return the signed distance to a line segment with round ends, positive inside."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
    return radius - norm(px - along * dx, py - along * dy)
