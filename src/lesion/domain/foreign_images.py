"""Pictures that no model was made for, to try out whether it recognizes them as foreign: drawn, from a seed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

Images = NDArray[np.uint8]  # (N, S, S, 3)

# The kinds, in words.
KINDS = {
    "noise": "noise",
    "blank": "blank pictures",
    "text": "pages of text",
    "color_texture": "textures in color, as in photographs",
    "gray_texture": "textures in gray",
    "leaf": "drawn leaves",
    "section": "drawn sections of other objects",
    "x_ray": "drawn X-ray pictures",
    "inverted": "its own images with light and dark exchanged",
    "upside_down": "its own images upside down",
    "quarter_turn": "its own images turned by a quarter",
    "cropped": "quarters of its own images",
    "blurred": "its own images blurred",
}

_LETTERS = "abcdefghijklmnopqrstuvwxyz    ABCDEFGHIJ0123456789.,"
_CROPPED = 0.5  # of the side


def foreign_images(own: Images, count: int, seed: int = 0) -> dict[str, Images]:
    """Return ``count`` pictures of each of ``KINDS``, of the size of ``own``, (M, S, S, 3).

    Those that are made of its own images are as many as there are, if these are fewer.
    """
    rng = np.random.default_rng(seed)
    size = own.shape[1]
    drawn: dict[str, Callable[[np.random.Generator, int], Images]] = {
        "noise": _noise,
        "blank": _blank,
        "text": _text,
        "color_texture": _color_texture,
        "gray_texture": _gray_texture,
        "leaf": _leaf,
        "section": _section,
        "x_ray": _x_ray,
    }
    pictures = {kind: np.stack([draw(rng, size) for _ in range(count)]) for kind, draw in drawn.items()}
    chosen = own[rng.choice(len(own), min(count, len(own)), replace=False)]
    return pictures | {
        "inverted": 255 - chosen,
        "upside_down": np.ascontiguousarray(chosen[:, ::-1]),
        "quarter_turn": np.ascontiguousarray(np.rot90(chosen, 1, (1, 2))),
        "cropped": np.stack([_crop(rng, image) for image in chosen]),
        "blurred": np.stack([_blur(image) for image in chosen]),
    }


def _noise(rng: np.random.Generator, size: int) -> Images:
    if rng.random() < 0.5:
        return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    gray = np.clip(rng.normal(128, rng.uniform(20, 80), (size, size, 1)), 0, 255)
    return np.repeat(gray, 3, axis=2).astype(np.uint8)


def _blank(rng: np.random.Generator, size: int) -> Images:
    color = rng.integers(0, 256, 3) if rng.random() < 0.5 else np.repeat(rng.choice([0, 128, 255]), 3)
    return np.broadcast_to(color.astype(np.uint8), (size, size, 3)).copy()


def _text(rng: np.random.Generator, size: int) -> Images:
    page = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(page)
    step = max(9, size // int(rng.integers(10, 20)))
    for top in range(4, size - 6, step):
        draw.text((5, top), "".join(rng.choice(list(_LETTERS), 80)), fill="black")
    pixels = np.array(page)
    return 255 - pixels if rng.random() < 0.3 else pixels


def _color_texture(rng: np.random.Generator, size: int) -> Images:
    """Like a photograph: smooth structures of all sizes, whose colors differ."""
    shared, share = _smooth(rng, size), rng.uniform(0.3, 0.8)
    channels = [rng.uniform(80, 170) + 45 * (shared + share * _smooth(rng, size)) for _ in range(3)]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def _gray_texture(rng: np.random.Generator, size: int) -> Images:
    gray = np.clip(rng.uniform(80, 170) + 50 * _smooth(rng, size), 0, 255)
    return np.repeat(gray[..., None], 3, axis=2).astype(np.uint8)


def _leaf(rng: np.random.Generator, size: int) -> Images:
    """Like a photograph of a leaf: an oval with veins, over ground in another color."""
    ground = np.array(rng.choice([[120, 95, 70], [90, 110, 70], [200, 200, 195], [60, 55, 50]]))
    green = np.array([rng.uniform(60, 130), rng.uniform(110, 180), rng.uniform(30, 80)])
    x, y = _turned_grid(rng, size)
    width, shade = rng.uniform(0.35, 0.7), _smooth(rng, size)[..., None]
    inside = (x**2 + (y / width) ** 2 < 0.8)[..., None]
    veins = (np.abs(y) < 0.02) | (np.abs((x + 0.8 * np.abs(y)) % 0.2 - 0.1) < 0.012)
    leaf = green + 14 * shade + 25 * veins[..., None]
    return np.clip(np.where(inside, leaf, ground + 20 * shade), 0, 255).astype(np.uint8)


def _section(rng: np.random.Generator, size: int) -> Images:
    """Like a section of some other object: a few bright and dark ovals on black, in gray."""
    gray = np.zeros((size, size))
    for _ in range(int(rng.integers(4, 9))):
        x, y = _turned_grid(rng, size)
        place, radii = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.1, 0.6, 2)
        gray += rng.uniform(-60, 140) * (((x - place[0]) / radii[0]) ** 2 + ((y - place[1]) / radii[1]) ** 2 < 1)
    gray += rng.uniform(2, 12) * rng.normal(size=gray.shape)
    return np.repeat(np.clip(gray, 0, 255)[..., None], 3, axis=2).astype(np.uint8)


def _x_ray(rng: np.random.Generator, size: int) -> Images:
    gray = _chest(rng, size) if rng.random() < 0.5 else _limb(rng, size)
    gray = ndimage.gaussian_filter(gray, size / 150) + rng.uniform(1, 6) * rng.normal(size=gray.shape)
    return np.repeat(np.clip(gray, 0, 255)[..., None], 3, axis=2).astype(np.uint8)


def _chest(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Return the gray levels of a drawn chest: two dark lungs with ribs, a bright spine and a heart, (S, S)."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    gray = rng.uniform(140, 190) - 70 * np.maximum(np.abs(x) + np.abs(y) - 1.1, 0) + 8 * _smooth(rng, size)
    width, height, middle = rng.uniform(0.22, 0.32), rng.uniform(0.5, 0.7), rng.uniform(-0.15, 0.05)
    lungs = ((np.abs(x) - 0.42) / width) ** 2 + ((y - middle) / height) ** 2 < 1
    ribs = np.sin(rng.uniform(16, 24) * (y + 0.35 * x**2)) > 0.3
    gray[lungs] -= rng.uniform(60, 110)
    gray[lungs & ribs] += rng.uniform(12, 30)
    gray[np.abs(x) < 0.09] += rng.uniform(10, 35)
    gray[((x - 0.15) / 0.3) ** 2 + ((y - 0.3) / 0.3) ** 2 < 1] += rng.uniform(20, 50)
    return np.asarray(gray)


def _limb(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Return the gray levels of one or two bright bones with a joint, in a softer band on black."""
    x, y = _turned_grid(rng, size)
    thick = rng.uniform(0.3, 0.5)
    gray = np.where(np.abs(y) < thick, rng.uniform(50, 90), 0.0) + rng.uniform(0, 15)
    bones = (0.0,) if rng.random() < 0.5 else (-0.4 * thick, 0.4 * thick)
    for place in bones:
        radius = (0.35 / len(bones) + 0.25 * np.exp(-((x / 0.15) ** 2))) * thick
        bone = np.abs(y - place) < radius
        gray += np.where(bone, rng.uniform(60, 100) + 50 * (np.abs(y - place) > 0.75 * radius), 0)
    gray -= np.where(np.abs(x) < 0.03, rng.uniform(30, 60), 0)
    return np.asarray(gray)


def _turned_grid(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates from -1 to 1 along two directions at right angles, turned at random, each (S, S)."""
    angle, line = rng.uniform(0, 2 * np.pi), np.linspace(-1, 1, size)
    x, y = line[None, :], line[:, None]
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _smooth(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Return noise, (S, S), whose amplitude falls with the frequency as that of natural images does."""
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency[:, None], frequency)
    radius[0, 0] = 1
    noise = np.real(np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) / radius ** rng.uniform(0.9, 1.5)))
    normal: NDArray[np.float64] = (noise - noise.mean()) / noise.std()
    return normal


def _crop(rng: np.random.Generator, image: Images) -> Images:
    size = image.shape[0]
    side = int(size * _CROPPED)
    top, left = rng.integers(0, size - side, 2)
    part = Image.fromarray(image[top : top + side, left : left + side])
    return np.array(part.resize((size, size), Image.Resampling.BICUBIC))


def _blur(image: Images) -> Images:
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(image.shape[0] / 32)))
