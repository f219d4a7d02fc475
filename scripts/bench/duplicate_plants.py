"""How copies are planted for ``scripts/bench/duplicates.py``: every kind of change, and every two of them."""

import io
from collections.abc import Callable
from functools import reduce
from itertools import combinations

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

Plant = Callable[[Image.Image, np.random.Generator], Image.Image]

_TURNS = tuple(Image.Transpose)


def reencoded(image: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.resize((round(image.width * 0.7), round(image.height * 0.7)), Image.Resampling.BICUBIC)


def brightened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.choice([0.85, 1.15])
    return image.point([min(255, round(value * factor)) for value in range(256)] * 3)


def gamma(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    exponent = np.exp(rng.uniform(np.log(0.6), np.log(1.6)))
    return image.point([round(255 * (value / 255) ** exponent) for value in range(256)] * 3)


def inverted(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.invert(image)


def turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bring the image into another of the eight orientations."""
    return image.transpose(_TURNS[rng.integers(len(_TURNS))])


def mirrored(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def rotated_slightly(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.rotate(rng.choice([-2.0, 2.0]), Image.Resampling.BICUBIC)


def rotated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.rotate(rng.choice([-1, 1]) * rng.uniform(2, 15), Image.Resampling.BICUBIC)


def shifted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    x, y = rng.uniform(-0.1, 0.1, 2)
    result = Image.new("RGB", image.size)
    result.paste(image, (round(x * image.width), round(y * image.height)))
    return result


def cropped_slightly(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut 3 % off the width and off the height, divided at random between the two opposite edges."""
    x, y = rng.uniform(0, 0.03, 2)
    width, height = image.size
    return image.crop((round(x * width), round(y * height), round((0.97 + x) * width), round((0.97 + y) * height)))


def cropped(image: Image.Image, _: np.random.Generator) -> Image.Image:
    x, y = round(0.1 * image.width), round(0.1 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def bordered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    x, y = round(0.1 * image.width), round(0.1 * image.height)
    color = int(rng.choice([0, 128, 255]))
    return ImageOps.expand(image, (x, y), (color, color, color))


def with_text(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write on a box of 40 % x 12 % of the picture, anywhere."""
    result = image.copy()
    width, height = round(0.4 * image.width), round(0.12 * image.height)
    x, y = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    colors = [(0, 0, 0), (255, 255, 255)]
    paper, ink = colors if rng.random() < 0.5 else colors[::-1]
    draw = ImageDraw.Draw(result)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=paper)
    draw.text((x + 2, y + 1), "PATIENT 4711 L", fill=ink, font=ImageFont.load_default(max(6, 0.6 * height)))
    return result


def chain(*plants: Plant) -> Plant:
    return lambda image, rng: reduce(lambda picture, plant: plant(picture, rng), plants, image)


SINGLE: dict[str, Plant] = {
    "re-encoded at quality 40": reencoded,
    "resized by 0.7": resized,
    "brightness ±15 %": brightened,
    "gamma 0.6 to 1.6": gamma,
    "inverted": inverted,
    "another orientation": turned,
    "rotated by 2° to 15°": rotated,
    "shifted by up to 10 %": shifted,
    "cropped by 10 % at each edge": cropped,
    "border of 10 %": bordered,
    "text on 40 % x 12 %": with_text,
}
KINDS: dict[str, Plant] = {
    "mirrored": mirrored,
    "cropped by 3 %": cropped_slightly,
    "rotated by ±2°": rotated_slightly,
    "all six": chain(mirrored, rotated_slightly, cropped_slightly, brightened, resized, reencoded),
    **SINGLE,
    **{f"{one}; {other}": chain(SINGLE[one], SINGLE[other]) for one, other in combinations(SINGLE, 2)},
}
