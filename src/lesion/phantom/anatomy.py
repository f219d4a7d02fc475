"""A healthy head: its parameters, which differ between patients, and the place of each pixel of an axial section in it.

Lengths are in head units (1 = half the length of the head at its widest level, about 95 mm); ``x`` grows to the right,
``y`` to the back, ``z`` upwards with 0 at the floor of the sella and 1 just above the vertex. Intensities are relative
to a strongly enhancing tumor at about 0.9; fat is suppressed, as is usual after contrast agent.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from lesion.phantom.fields import Plane, Waves, field, norm, sample_waves

EDGE = 0.02  # width of a tissue border, about two pixels at 224


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parameters of one patient's head: sampled once and shared by all its slices."""

    width: float
    harmonics: tuple[tuple[int, float, float], ...]
    scalp: float
    skull: float
    atrophy: float
    ventricles: float
    asymmetry: float
    base_width: float
    base_shift: float
    orbit: float
    air_cells: float
    gray: float
    white: float
    csf: float
    fat: float
    vessel: float
    calcified: float
    folds: Waves
    warp_x: Waves
    warp_y: Waves
    texture: Waves
    vessels: tuple[tuple[float, float, float, float], ...]

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Anatomy":
        """Sample a head."""
        white = rng.uniform(0.34, 0.44)
        angles = rng.uniform(0, 2 * np.pi, size=24)
        radii = np.sqrt(rng.uniform(0.1, 0.85, size=24))
        return cls(
            width=rng.uniform(0.76, 0.90),
            harmonics=tuple((k, rng.normal(0, 0.014 / (k - 1)), rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)),
            scalp=rng.uniform(0.05, 0.10),
            skull=rng.uniform(0.055, 0.085),
            atrophy=rng.uniform(0, 1),
            ventricles=rng.uniform(0.025, 0.075),
            asymmetry=rng.normal(0, 0.18),
            base_width=rng.uniform(0.88, 1.12),
            base_shift=rng.uniform(-0.06, 0.06),
            orbit=rng.uniform(0.16, 0.23),
            air_cells=rng.uniform(0.10, 0.20),
            gray=white * rng.uniform(0.72, 0.88),
            white=white,
            csf=rng.uniform(0.08, 0.16),
            fat=rng.uniform(0.40, 0.62),
            vessel=rng.uniform(0.55, 0.8),
            calcified=float(rng.random() < 0.35),
            folds=sample_waves(rng, 28, 0.15, 0.26),
            warp_x=sample_waves(rng, 6, 0.5, 1.4),
            warp_y=sample_waves(rng, 6, 0.5, 1.4),
            texture=sample_waves(rng, 12, 0.12, 0.7),
            vessels=tuple(
                (float(r * np.cos(t)), float(r * np.sin(t)), float(z), float(s))
                for r, t, z, s in zip(
                    radii, angles, rng.uniform(0, 0.85, size=24), rng.uniform(0.007, 0.017, size=24), strict=True
                )
            ),
        )

    def scale(self, z: float) -> float:
        """Return the size of the head's outline at level ``z``, relative to the widest one."""
        return math.sqrt(1 - ((z - 0.3) / 0.80) ** 2) if z > 0.3 else 1 - 0.25 * (0.3 - z)


@dataclass(frozen=True, slots=True)
class Section:
    """One level of a head on the pixel grid: ``u`` and ``v`` are 1 at the outline, ``depth`` is that below the skin."""

    z: float
    x: Plane
    y: Plane
    u: Plane
    v: Plane
    depth: Plane

    @classmethod
    def cut(cls, head: Anatomy, x: Plane, y: Plane, z: float) -> "Section":
        """Cut the head at ``z`` and bend it a little, so that every head has its own, asymmetric shape."""
        size = head.scale(z)
        x = x + 0.014 * field(head.warp_x, x, y, z)
        y = y + 0.014 * field(head.warp_y, x, y, z)
        u, v = x / (head.width * size), y / size
        angle = np.arctan2(v, u)
        outline = np.ones_like(x)
        for order, amplitude, phase in head.harmonics:
            outline += amplitude * np.cos(order * angle + phase)
        depth = (1 - norm(u, v) / outline) * (size * (1 + head.width) / 2)
        return cls(z, x, y, u, v, depth)


def at_base(head: Anatomy, section: Section) -> Section:
    """Return the section in the coordinates of this head's skull base, in which the sella is at (0, -0.15)."""
    return replace(section, u=section.u / head.base_width, v=section.v - head.base_shift)


def brain_surface(head: Anatomy, z: float) -> float:
    """Return the depth of the dura below the skin at ``z``: near the vertex, the cut through the vault is oblique."""
    return (head.scalp + head.skull) / math.pow(max(head.scale(z), 0.55), 0.7)
