"""Grad-CAM heat maps in closed form, and their overlays as PNG files. Needs only NumPy and Pillow."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_EPSILON = 1e-7
# Nine evenly spaced colors of Matplotlib's "plasma", between which the 256 colors are interpolated. It grows lighter
# from end to end, so color-blind users see where it is strongest too, and it has no green, unlike leaves.
_PLASMA_STEPS = (
    (13, 8, 135), (76, 2, 161), (126, 3, 168), (170, 35, 149), (204, 71, 120),
    (230, 108, 92), (248, 149, 64), (253, 197, 39), (240, 249, 33),
)  # fmt: skip
_PLASMA = np.rint(
    [np.interp(np.linspace(0, 8, 256), range(9), channel) for channel in zip(*_PLASMA_STEPS, strict=True)]
).T.astype(np.uint8)


def gradcam(cam: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Turn a class activation map of the network into the Grad-CAM heat map that pytorch-grad-cam shows.

    For a network that ends in global average pooling and a linear layer, Grad-CAM on the last activation (Selvaraju et
    al., ICCV 2017) is that layer's weights applied to the activation, up to a constant factor, which scaling removes.

    The map, (h, w), of one class is rectified, scaled to its range, enlarged bilinearly to ``size`` (height and width)
    and scaled again, to [0, 1]. It is all zeros where nothing in the image speaks for the class.
    """
    scaled = _scale(np.maximum(cam, 0.0))
    height, width = size
    enlarged = Image.fromarray(scaled, mode="F").resize((width, height), Image.Resampling.BILINEAR)
    return _scale(np.maximum(np.asarray(enlarged, dtype=np.float32), 0.0))


def apply_colormap(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Color a (H, W) map in [0, 1] from dark blue through violet and orange to yellow; returns (H, W, 3)."""
    return np.asarray(_PLASMA[to_grayscale(heat)])


def to_grayscale(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Turn a (H, W) map in [0, 1] into shades of gray, (H, W), from black to white."""
    return np.asarray(np.clip(heat, 0.0, 1.0) * 255.0 + 0.5, dtype=np.uint8)


def overlay(image: NDArray[np.uint8], heat: NDArray[np.floating], opacity: float = 0.6) -> NDArray[np.uint8]:
    """Lay a heat map, (H, W) in [0, 1], over an RGB image, (H, W, 3); where the map is 0 the image stays as it is.

    ``opacity`` is how much of the image the strongest heat hides, in [0, 1].
    """
    weight = (opacity * np.sqrt(np.clip(heat, 0.0, 1.0)))[..., None]
    return np.asarray(image * (1.0 - weight) + apply_colormap(heat) * weight + 0.5, dtype=np.uint8)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode (H, W, 3) RGB or (H, W) grayscale pixels as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _scale(values: NDArray[np.float32]) -> NDArray[np.float32]:
    values = values - values.min()
    return np.asarray(values / (_EPSILON + values.max()), dtype=np.float32)
