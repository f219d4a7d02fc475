"""From the signal of a slice to a picture: pose in the field of view, coil shading, blur, Rician noise and window."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lesion.phantom.fields import Plane, norm


@dataclass(frozen=True, slots=True)
class Scanner:
    """Settings of one scan: sampled once for a patient and shared by all its slices."""

    rotation: float
    zoom: float
    shift: tuple[float, float]
    shading: tuple[float, float, float, float, float]
    blur: float
    noise: float
    gain: float
    gamma: float

    @classmethod
    def sample(cls, rng: np.random.Generator, low_field: bool = False) -> "Scanner":
        """Sample a scan; ``zoom`` is half the length of the head relative to half the image.

        A low-field scanner shows the same heads with more noise, less detail and another contrast.
        """
        zoom = rng.uniform(0.70, 0.92)
        room = 0.4 * (1 - zoom) + 0.03
        usual = cls(
            rotation=rng.normal(0, 0.12),
            zoom=zoom,
            shift=(rng.uniform(-room, room), rng.uniform(-room, room)),
            shading=tuple(rng.normal(0, (0.10, 0.10, 0.06, 0.08, 0.08)).tolist()),
            blur=rng.uniform(0.002, 0.0055),
            noise=rng.uniform(0.012, 0.035),
            gain=rng.uniform(0.72, 1.1),
            gamma=rng.uniform(0.9, 1.2),
        )
        if not low_field:
            return usual
        blur, noise, gain, gamma = 1.5 * usual.blur, 3.0 * usual.noise, 0.75 * usual.gain, usual.gamma + 0.8
        return replace(usual, blur=blur, noise=noise, gain=gain, gamma=gamma)

    def grid(self, size: int) -> tuple[Plane, Plane]:
        """Return the head coordinates of each pixel of a square image: two float32 (size, size)."""
        axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        x, y = np.meshgrid(axis - self.shift[0], axis - self.shift[1])
        cos, sin = math.cos(self.rotation) / self.zoom, math.sin(self.rotation) / self.zoom
        return cos * x + sin * y, cos * y - sin * x

    def acquire(self, signal: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Turn the signal of a slice, float32 (size, size) in about [0, 1], into a picture, uint8 (size, size)."""
        size = len(signal)
        axis = np.linspace(-1, 1, size, dtype=np.float32)
        x, y = axis[None, :], axis[:, None]
        a, b, c, d, e = np.asarray(self.shading, dtype=np.float32)
        image = gaussian_filter(signal, self.blur * size) * np.exp(a * x + b * y + c * x * y + d * x**2 + e * y**2)
        real, imaginary = self.noise * rng.standard_normal((2, size, size), dtype=np.float32)
        magnitude = norm(image + real, imaginary)  # Rician: the magnitude of a complex signal
        window: Plane = np.clip(self.gain * magnitude**self.gamma, 0, 1)
        return np.round(window * 255).astype(np.uint8)
