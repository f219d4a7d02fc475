"""Measure the search for near-duplicates: ``python scripts/bench/duplicates.py --root DIR --require``.

Copies of real images are planted (``scripts/bench/duplicate_plants.py``) and searched for among all images of the
folder. A copy counts as found when it is paired with its source, or with an image that has the thumbnail of the source.
A pair of a copy with an image of another class, or of another patient (for files named ``patient..._slice...``), counts
as false. The pHash of imagehash is measured next to it.
"""

import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from lesion.deduplication.duplicate_index import DuplicateIndex
from lesion.deduplication.duplicates import Matches, near_duplicate_pairs, search
from lesion.deduplication.features import Thumbnails, extract_features, make_thumbnail
from lesion.deduplication.grouping import groups, merge_groups
from lesion.imaging.decode import decode, read
from lesion.imaging.file_types import is_image_name
from lesion.phantom.folder import generate
from scripts.bench.common import bench_parser, bench_table, machine, timed, verdict
from scripts.bench.duplicate_plants import KINDS, Plant

PHASH_LIMIT = 10
COLUMNS = ("copies", "as copy", "as copy or related", "false copies", "false related", "pHash", "false pHash")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """The shares of 1 that a method reaches: of the copies that it finds, and of the wrong pairs among all of them."""

    found: float
    wrong: float


@dataclass(eq=False)
class Search:
    """The real images of a folder, of which copies are made."""

    pictures: list[NDArray[np.uint8]]  # RGB
    subjects: Ints  # what each picture shows: pairs of one subject are never counted as wrong
    sources: Ints  # the rows of the pictures that copies are made of
    symmetric: bool = True  # whether all searches so far found the same in both directions

    def __post_init__(self) -> None:
        self.reference = np.stack([make_thumbnail(picture) for picture in self.pictures])
        self.equal = merge_groups([thumbnail.tobytes().hex() for thumbnail in self.reference])
        self.distinct = np.unique(self.equal, return_index=True)[1]
        self.features = extract_features(self.reference[self.distinct])
        self.hashes = phashes([Image.fromarray(picture) for picture in self.pictures])

    def scores(self, plant: Plant, rng: np.random.Generator) -> tuple[Score, Score, Score]:
        """Plant one copy of each source, and score the copies, the related images and the pHash."""
        copies = [plant(Image.fromarray(self.pictures[source]), rng) for source in self.sources]
        thumbnails = np.stack([make_thumbnail(np.asarray(copy)) for copy in copies])
        features = extract_features(thumbnails)
        found = search(features, self.features)
        self.symmetric &= same_pairs(found, search(self.features, features))
        near_hashes = phash_pairs(phashes(copies), self.hashes, PHASH_LIMIT)
        copied, related, hashed = (
            score(pairs, self.sources, self.subjects, self.equal)
            for pairs in (self.named(found.copies), self.named(found.related), near_hashes)
        )
        return copied, related, hashed

    def named(self, pairs: Ints) -> Ints:
        """Return pairs with the row of the picture in place of that of its features."""
        return np.stack([pairs[:, 0], self.distinct[pairs[:, 1]]], axis=1)


def same_pairs(forth: Matches, back: Matches) -> bool:
    """Return whether two searches, from A to B and from B to A, found the same pairs and scores."""
    order = np.lexsort(back.related.T)  # by the row of A, then by that of B
    return bool(
        np.array_equal(forth.related, back.related[order][:, ::-1]) and np.array_equal(forth.score, back.score[order])
    )


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


def score(pairs: Ints, sources: Ints, subjects: Ints, equal: Ints) -> Score:
    """Score the pairs (row of a copy, row of a real image) that a method reports.

    Args:
        pairs: (P, 2).
        sources: The image that each copy was made of.
        subjects: What each image shows.
        equal: Images with the same number have equal thumbnails.
    """
    found = np.zeros(len(sources), np.bool_)
    found[pairs[equal[pairs[:, 1]] == equal[sources[pairs[:, 0]]], 0]] = True
    wrong = int((subjects[pairs[:, 1]] != subjects[sources[pairs[:, 0]]]).sum())
    others = int((subjects != subjects[sources][:, None]).sum())
    return Score(float(found.mean()), wrong / others if others else 0.0)


def bench(root: Path, images: int, seed: int, console: Console) -> bool:
    """Measure one folder, print the results, and return whether the requirement is met."""
    listed = labeled_images(root)
    if len(listed) < 2:
        console.print(f"{root}: needs at least 2 images, has {len(listed)}.")
        return False
    names = [path.stem.partition("_slice")[0] if "_slice" in path.stem else label for path, label in listed]
    subjects = np.unique(names, return_inverse=True)[1].astype(np.int64)
    rng = np.random.default_rng(seed)
    sources = np.sort(rng.choice(len(listed), min(images, len(listed)), replace=False))
    folder = Search([decode(read(path)) for path, _ in listed], subjects, sources)
    title = f"{root.name}: {len(listed)} images, {len(sources)} copies of each kind, seed {seed}"
    table = bench_table(title, COLUMNS)
    results = []
    for kind, plant in KINDS.items():
        copied, related, hashed = folder.scores(plant, rng)
        results.append((copied.found, related.found, copied.wrong, related.wrong, hashed.found, hashed.wrong))
        table.add_row(kind, *percentages(results[-1]))
    table.add_row("mean of all kinds", *percentages(np.mean(results, axis=0)))
    console.print(table)
    passed = min(found for _, found, *_ in results) >= 0.99 and max(wrong for _, _, wrong, *_ in results) < 0.001
    console.print(
        f"{root.name}: A to B = B to A for all kinds: {folder.symmetric}. {groups_of(folder.reference)} Requirement "
        f"(each kind found ≥ 99 %, false copies < 0.1 %): {verdict(passed)}.\n"
    )
    return passed and folder.symmetric


def percentages(shares: tuple[float, ...] | NDArray[np.float64]) -> list[str]:
    return [f"{100 * share:.3f} %" for share in shares]


def groups_of(reference: Thumbnails) -> str:
    """Describe the groups that the real images form."""
    found = near_duplicate_pairs(reference)
    facts = []
    for name, pairs in (("copies", found.copies), ("related images", found.related)):
        sizes = np.sort(np.bincount(groups(len(reference), pairs)))[::-1]
        largest = ", ".join(map(str, sizes[:3]))
        facts.append(f"{int(sizes[sizes > 1].sum())} real images in {int((sizes > 1).sum())} groups of {name}, the "
                     f"largest of {largest}.")  # fmt: skip
    return " ".join(facts)


def time_search(images: int, queries: int, console: Console) -> None:
    """Print how long a folder of phantoms and single queries take."""
    with tempfile.TemporaryDirectory() as folder:
        root = generate(Path(folder) / "phantoms", patients=(images + 15) // 16, slices=16)
        paths = [path for path, _ in labeled_images(root)][:images]
        thumbnails, reading_s = timed(lambda: np.stack([make_thumbnail(decode(read(path))) for path in paths]))
    _, search_s = timed(lambda: near_duplicate_pairs(thumbnails))
    index = DuplicateIndex()
    index.add(thumbnails, [str(row) for row in range(len(thumbnails))])
    rows = np.random.default_rng(0).choice(len(thumbnails), queries)
    seconds = [timed(partial(index.query, thumbnails[row, ::-1]))[1] for row in rows]
    console.print(
        f"{len(thumbnails)} phantoms of 224 pixels: read in {reading_s:.1f} s by one process, pairs in {search_s:.1f} "
        f"s; a query of an index of them takes {1000 * np.median(seconds):.1f} ms (median of {queries}); {machine()}."
    )


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when the requirement fails")
    parser.add_argument("--root", type=Path, action="append", default=[], help="a folder of images; may be repeated")
    parser.add_argument("--phantoms", type=int, default=0, help="bench a folder of so many phantom patients as well")
    parser.add_argument("--images", type=int, default=200, help="how many images to plant copies of")
    parser.add_argument("--timed", type=int, default=0, help="measure the time with so many phantoms")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.images < 1:
        parser.error("--images must be at least 1")
    if missing := [str(root) for root in options.root if not root.is_dir()]:
        parser.error(f"no such folder: {', '.join(missing)}")
    console = Console(width=140)
    passed = [bench(root, options.images, options.seed, console) for root in options.root]
    if options.phantoms:
        with tempfile.TemporaryDirectory() as folder:
            root = generate(Path(folder) / "phantoms", patients=options.phantoms, slices=4)
            passed.append(bench(root, options.images, options.seed, console))
    if options.timed:
        time_search(options.timed, 50, console)
    return int(options.require and not all(passed))


if __name__ == "__main__":
    sys.exit(main())
