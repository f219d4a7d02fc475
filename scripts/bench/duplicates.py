"""Measure the search for near-duplicates: ``python scripts/bench/duplicates.py --root DIR --require``.

Copies of real images are planted (re-encoded, resized, brightened, turned, cropped, mirrored) and searched for among
all images of the folder. Groups are transitive, so both figures are counted after the closure: a copy counts as found
when it is in the group of its source, and two images count as joined when they are in one group. The pHash of imagehash
is measured next to it.
"""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from sklearn.metrics.cluster import pair_confusion_matrix

from lesion.deduplication.duplicates import groups, merge_groups, near_duplicate_pairs, near_duplicates_of
from lesion.deduplication.features import make_thumbnail
from lesion.imaging.decode import decode, read
from lesion.imaging.file_types import is_image_name
from scripts.bench.common import bench_parser, bench_table, timed, verdict

PHASH_LIMITS = (8, 10)
COLUMNS = ("copies", "method", "pair found", "same group", "joined: other class", "joined: all pairs")
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
    """Cut 3 % off the width and off the height, divided at random between the two opposite edges."""
    x, y = rng.uniform(0, 0.03, 2)
    width, height = image.size
    return image.crop((round(x * width), round(y * height), round((0.97 + x) * width), round((0.97 + y) * height)))


def cropped_at_each_edge(image: Image.Image, _: np.random.Generator) -> Image.Image:
    x, y = round(0.03 * image.width), round(0.03 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def mirrored(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def chain(*plants: Plant) -> Plant:
    return lambda image, rng: reduce(lambda picture, plant: plant(picture, rng), plants, image)


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
    """The result of one method for one kind of copy: shares of 1, after the transitive closure except ``direct``."""

    direct: float
    grouped: float
    cross_class: float
    overall: float

    def passes(self) -> bool:
        # A folder of a single class has no pair across classes: cross_class is NaN then, and decides nothing.
        return self.grouped >= 0.99 and not self.cross_class >= 0.01 and self.overall < 0.01


@dataclass(eq=False)
class Search:
    """Both methods, with what they find among the real images of a folder."""

    pictures: list[NDArray[np.uint8]]  # RGB
    labels: Ints  # the class of each picture
    sources: Ints  # the rows of the pictures that copies are made of

    def __post_init__(self) -> None:
        thumbnails, seconds = timed(lambda: [make_thumbnail(picture) for picture in self.pictures])
        self.thumbnail_ms = 1000 * seconds / len(thumbnails)
        self.reference = np.stack(thumbnails)
        self.pairs, pairs_s = timed(lambda: near_duplicate_pairs(self.reference))
        self.group, group_s = timed(lambda: groups(len(self.reference), self.pairs))
        self.search_s = pairs_s + group_s
        self.equal = merge_groups([thumbnail.tobytes().hex() for thumbnail in thumbnails])
        self.hashes = phashes([Image.fromarray(picture) for picture in self.pictures])
        self.hash_pairs = {limit: phash_pairs(self.hashes, self.hashes, limit) for limit in PHASH_LIMITS}

    def scores(self, plant: Plant, rng: np.random.Generator) -> dict[str, Score]:
        """Plant one copy of each source, and score each method by its name."""
        copies = [plant(Image.fromarray(self.pictures[source]), rng) for source in self.sources]
        copy_thumbnails = np.stack([make_thumbnail(np.asarray(copy)) for copy in copies])
        hashes = phashes(copies)
        pairs = {"lesion": (self.pairs, near_duplicates_of(copy_thumbnails, self.reference))} | {
            f"pHash ≤ {limit}": (real, phash_pairs(hashes, self.hashes, limit))
            for limit, real in self.hash_pairs.items()
        }
        return {
            name: score(real, planted, self.sources, self.labels, self.equal) for name, (real, planted) in pairs.items()
        }


def labeled_images(root: Path) -> list[tuple[Path, str]]:
    """Return every image in ``root`` with its class: the name of its folder, or its label in a Kaggle ``train.csv``."""
    paths = sorted(path for path in root.rglob("*") if is_image_name(path))
    table = root / "train.csv"
    if not table.is_file():
        return [(path, path.parent.name) for path in paths]
    labels = dict(line.split(",", 1) for line in table.read_text("utf-8").split()[1:])
    return [(path, labels[path.name]) for path in paths if path.name in labels]


def phashes(pictures: list[Image.Image]) -> NDArray[np.uint64]:
    return np.array([int(str(imagehash.phash(picture)), 16) for picture in pictures], np.uint64)


def phash_pairs(query: NDArray[np.uint64], reference: NDArray[np.uint64], limit: int) -> Ints:
    """Return pairs (row of query, row of reference) that differ in at most ``limit`` bits."""
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(query), 512):
        near = np.bitwise_count(query[start : start + 512, None] ^ reference) <= limit
        pairs.append(np.argwhere(near) + np.array([start, 0]))
    return np.concatenate(pairs)


def joined(group: Ints, labels: Ints) -> tuple[int, int]:
    """Return how many pairs share a group, and how many of these pairs have two classes."""
    cross, alike = pair_confusion_matrix(labels, group)[:, 1] // 2
    return int(cross + alike), int(cross)


def score(real: Ints, copies: Ints, sources: Ints, labels: Ints, equal: Ints) -> Score:
    """Score the pairs that a method reports.

    Args:
        real: Pairs among the n real images.
        copies: Pairs (copy, real image).
        sources: The image that each copy was made of.
        labels: The class of each image.
        equal: Images with the same number have equal thumbnails: a pair with any of them counts as found.
    """
    n, every = len(labels), np.concatenate([labels, labels[sources]])
    group = groups(len(every), np.concatenate([real, copies + np.array([n, 0])]))
    direct = np.zeros(len(sources), np.bool_)
    direct[copies[equal[copies[:, 1]] == equal[sources[copies[:, 0]]], 0]] = True
    same, cross = joined(group, every)
    pairs, cross_pairs = joined(np.zeros_like(every), every)
    grouped = group[n:] == group[sources]
    return Score(
        direct=float(direct.mean()),
        grouped=float(grouped.mean()),
        cross_class=cross / cross_pairs if cross_pairs else float("nan"),
        overall=(same - int(grouped.sum())) / pairs,
    )


def bench(root: Path, images: int, seed: int, console: Console) -> bool:
    """Measure one folder, print the results, and return whether the requirement is met."""
    listed = labeled_images(root)
    if len(listed) < 2:
        console.print(f"{root}: needs at least 2 images, has {len(listed)}.")
        return False
    labels = np.unique([label for _, label in listed], return_inverse=True)[1].astype(np.int64)
    rng = np.random.default_rng(seed)
    sources = np.sort(rng.choice(len(listed), min(images, len(listed)), replace=False))
    search = Search([decode(read(path)) for path, _ in listed], labels, sources)
    title = f"{root.name}: {len(listed)} images, {len(sources)} copies of each kind, seed {seed}"
    table = bench_table(title, COLUMNS, left=2)
    passed = True
    for kind, plant in KINDS.items():
        scores = search.scores(plant, rng)
        passed &= scores["lesion"].passes()
        for row, (method, result) in enumerate(scores.items()):
            figures = (result.direct, result.grouped, result.cross_class, result.overall)
            table.add_row("" if row else kind, method, *(f"{100 * figure:.3f} %" for figure in figures))
    console.print(table)
    sizes = np.bincount(search.group)
    console.print(
        f"{root.name}: {int(sizes[sizes > 1].sum())} real images in {int((sizes > 1).sum())} groups of two or more, "
        f"the largest {int(sizes.max())}. Thumbnail {search.thumbnail_ms:.2f} ms per image after decoding; pairs and "
        f"groups of {len(listed)} images {search.search_s:.1f} s. Requirement (same group ≥ 99 %, joined < 1 %): "
        f"{verdict(passed)}.\n"
    )
    return passed


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when the requirement fails")
    parser.add_argument("--root", type=Path, action="append", required=True, help="a folder of images; may be repeated")
    parser.add_argument("--images", type=int, default=1000, help="how many images to plant copies of")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.images < 1:
        parser.error("--images must be at least 1")
    if missing := [str(root) for root in options.root if not root.is_dir()]:
        parser.error(f"no such folder: {', '.join(missing)}")
    passed = [bench(root, options.images, options.seed, Console(width=120)) for root in options.root]
    return int(options.require and not all(passed))


if __name__ == "__main__":
    sys.exit(main())
