"""Measure the search for near-duplicates: ``python scripts/bench/duplicates.py --root DIR --require``.

Copies of real images are planted (re-encoded, resized, brightened, turned, cropped, mirrored) and searched for among
all images of the folder. Groups are transitive, so both sides are counted after the closure: a copy is found when it is
in its source's group, and two images are joined when they are in one group. imagehash's pHash is measured beside it.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from lesion.deduplication.duplicates import (
    Descriptors,
    describe,
    groups,
    merge_groups,
    near_duplicate_pairs,
    near_duplicates_of,
)
from lesion.imaging.decode import decode, read

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
PHASH_LIMITS = (8, 10)
Plant = Callable[[Image.Image, np.random.Generator], Image.Image]
Ints = NDArray[np.int64]


def reencoded(image: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.resize((round(image.width * 0.7), round(image.height * 0.7)), Image.Resampling.BICUBIC)


def brightened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.choice([0.85, 1.15])
    return image.point([min(255, round(value * factor)) for value in range(256)] * 3)


def rotated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.rotate(rng.choice([-2.0, 2.0]), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Take 3 % off the width and off the height, anywhere between one edge alone and both alike."""
    x, y = rng.uniform(0, 0.03, 2)
    width, height = image.size
    return image.crop((round(x * width), round(y * height), round((0.97 + x) * width), round((0.97 + y) * height)))


def cropped_at_each_edge(image: Image.Image, _: np.random.Generator) -> Image.Image:
    x, y = round(0.03 * image.width), round(0.03 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def mirrored(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def chain(*plants: Plant) -> Plant:
    def plant(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for one in plants:
            image = one(image, rng)
        return image

    return plant


KINDS: dict[str, Plant] = {
    "re-encoded at quality 40": reencoded,
    "resized by 0.7": resized,
    "brightness ±15 %": brightened,
    "rotated by ±2°": rotated,
    "cropped by 3 %": cropped,
    "cropped by 3 % at each edge": cropped_at_each_edge,
    "mirrored": mirrored,
    "mirrored, resized, re-encoded": chain(mirrored, resized, reencoded),
    "rotated, cropped by 3 %": chain(rotated, cropped),
    "all six": chain(mirrored, rotated, cropped, brightened, resized, reencoded),
}


@dataclass(frozen=True)
class Score:
    """What a method made of one kind of copy; shares of 1, after the transitive closure but for ``direct``."""

    direct: float
    grouped: float
    cross_class: float
    overall: float

    def passes(self) -> bool:
        # with one class alone there is no pair across classes: cross_class is NaN and decides nothing
        return self.grouped >= 0.99 and not self.cross_class >= 0.01 and self.overall < 0.01


def labelled_images(root: Path) -> list[tuple[Path, str]]:
    """Every image below ``root`` with its class: its folder's name, or its label in a Kaggle ``train.csv``."""
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    table = root / "train.csv"
    if not table.is_file():
        return [(path, path.parent.name) for path in paths]
    rows = (line.split(",", 1) for line in table.read_text("utf-8").split()[1:])
    labels = dict(rows)
    return [(path, labels[path.name]) for path in paths if path.name in labels]


def phash(image: Image.Image) -> int:
    return int(str(imagehash.phash(image)), 16)


def phash_pairs(query: NDArray[np.uint64], reference: NDArray[np.uint64], limit: int) -> Ints:
    """Pairs (row of query, row of reference) at most ``limit`` bits apart."""
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(query), 512):
        near = np.bitwise_count(query[start : start + 512, None] ^ reference) <= limit
        found.append(np.argwhere(near) + np.array([start, 0]))
    return np.concatenate(found)


def joined(group: Ints, labels: Ints) -> tuple[int, int]:
    """How many pairs share a group, and how many of them are of different classes."""
    table = np.zeros((group.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (group, labels), 1)
    sizes = table.sum(axis=1)
    return int((sizes * (sizes - 1)).sum() // 2), int((sizes**2 - (table**2).sum(axis=1)).sum() // 2)


def score(real: Ints, copies: Ints, sources: Ints, labels: Ints, equal: Ints) -> Score:
    """Score the pairs found.

    Args:
        real: Pairs among the n real images.
        copies: Pairs (copy, real image).
        sources: The image that each copy was made of.
        labels: The class of each image.
        equal: Images with one number have equal thumbnails: to find either of them is to find the pair.
    """
    n, every = len(labels), np.concatenate([labels, labels[sources]])
    group = groups(len(every), np.concatenate([real, copies + np.array([n, 0])]))
    direct = np.zeros(len(sources), np.bool_)
    direct[copies[equal[copies[:, 1]] == equal[sources[copies[:, 0]]], 0]] = True
    same, cross = joined(group, every)
    pairs, cross_pairs = joined(np.zeros_like(every), every)
    found = group[n:] == group[sources]
    return Score(
        direct=float(direct.mean()),
        grouped=float(found.mean()),
        cross_class=cross / cross_pairs if cross_pairs else float("nan"),
        overall=(same - int(found.sum())) / pairs,
    )


def bench(root: Path, images: int, seed: int, console: Console) -> bool:
    """Measure one folder, print what came out, and say whether the requirement holds."""
    listed = labelled_images(root)
    if len(listed) < 2:
        console.print(f"{root}: needs at least 2 images, has {len(listed)}.")
        return False
    labels = np.unique([label for _, label in listed], return_inverse=True)[1].astype(np.int64)
    rng = np.random.default_rng(seed)
    sources = np.sort(rng.choice(len(listed), min(images, len(listed)), replace=False))
    pictures = [decode(read(path)) for path, _ in listed]
    began = time.perf_counter()
    descriptors = [describe(picture) for picture in pictures]
    describing = (time.perf_counter() - began) / len(pictures)
    reference = Descriptors.stack(descriptors)
    hashes = np.array([phash(Image.fromarray(picture)) for picture in pictures], np.uint64)
    began = time.perf_counter()
    pairs = near_duplicate_pairs(reference)
    group = groups(len(listed), pairs)
    searching = time.perf_counter() - began
    equal = merge_groups([descriptor.thumbnail.tobytes().hex() for descriptor in descriptors])
    hashed = {limit: phash_pairs(hashes, hashes, limit) for limit in PHASH_LIMITS}

    table = Table(title=f"{root.name}: {len(listed)} images, {len(sources)} copies of each kind, seed {seed}")
    for column in ("copies", "method", "pair found", "same group", "joined: other class", "joined: all pairs"):
        table.add_column(column, justify="left" if column in ("copies", "method") else "right")
    passed = True
    for kind, plant in KINDS.items():
        planted = [plant(Image.fromarray(pictures[source]), rng) for source in sources]
        described = Descriptors.stack([describe(np.asarray(copy)) for copy in planted])
        ours = score(pairs, near_duplicates_of(described, reference), sources, labels, equal)
        passed &= ours.passes()
        planted_hashes = np.array([phash(copy) for copy in planted], np.uint64)
        theirs = {
            f"pHash ≤ {limit}": score(real, phash_pairs(planted_hashes, hashes, limit), sources, labels, equal)
            for limit, real in hashed.items()
        }
        for row, (method, result) in enumerate({"lesion": ours, **theirs}.items()):
            figures = (result.direct, result.grouped, result.cross_class, result.overall)
            table.add_row("" if row else kind, method, *(f"{100 * figure:.3f} %" for figure in figures))
    console.print(table)
    sizes = np.bincount(group)
    console.print(
        f"{root.name}: {int(sizes[sizes > 1].sum())} real images in {int((sizes > 1).sum())} groups of two or more, "
        f"the largest {int(sizes.max())}. Descriptor {1000 * describing:.2f} ms an image over decoding; pairs and "
        f"groups of {len(listed)} images {searching:.1f} s. Requirement (same group ≥ 99 %, joined < 1 %): "
        f"{'met' if passed else 'NOT met'}.\n"
    )
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, action="append", required=True, help="a folder of images; may be repeated")
    parser.add_argument("--images", type=int, default=1000, help="how many images to plant copies of")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--require", action="store_true", help="exit with 1 when the requirement fails")
    given = parser.parse_args()
    if given.images < 1:
        parser.error("--images must be at least 1")
    if missing := [str(root) for root in given.root if not root.is_dir()]:
        parser.error(f"no such folder: {', '.join(missing)}")
    passed = [bench(root, given.images, given.seed, Console(width=120)) for root in given.root]
    return int(given.require and not all(passed))


if __name__ == "__main__":
    sys.exit(main())
