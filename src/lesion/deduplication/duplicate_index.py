"""A search index for near-duplicates that grows image by image: uploads are compared with it."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.duplicates import search
from lesion.deduplication.features import Features, Thumbnails, empty_features, extract_features
from lesion.deduplication.verification import COPY


class Neighbors(NamedTuple):
    """The names of images, in the order in which they were added."""

    copies: list[str]  # they show the same picture
    related: list[str]  # they may show the same picture, but are not among the copies


class Found(NamedTuple):
    """What a search among the first images of an index found."""

    query: Features  # of the image
    searched: int  # rows of the index
    rows: NDArray[np.int64]  # (F,) those of near-duplicates
    scores: NDArray[np.float32]  # (F,) how sure that is


class DuplicateIndex:
    """Named images with which single images are compared; the matches are those of ``near_duplicates_of``.

    The features of an image are computed once, when it is added, and take about 12 KB. Safe to use from several
    threads: a query sees the images that were there when it began.
    """

    def __init__(self) -> None:
        self._features = empty_features(0)  # rows from ``_size`` on are spare
        self._size = 0
        self._rows: dict[bytes, int] = {}
        self._names: list[list[str]] = []  # images with equal thumbnails share a row
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._names))

    def add(self, thumbnails: Thumbnails, names: Sequence[str]) -> None:
        """Add images under the names that :meth:`query` returns."""
        new_thumbnails = []
        with self._lock:
            for thumbnail, name in zip(thumbnails, names, strict=True):
                row = self._rows.setdefault(thumbnail.tobytes(), len(self._names))
                if row == len(self._names):
                    self._names.append([])
                    new_thumbnails.append(thumbnail)
                self._names[row].append(name)
            if new_thumbnails:
                self._append(extract_features(np.stack(new_thumbnails)))

    def query(self, thumbnail: NDArray[np.uint8]) -> Neighbors:
        """Return the images that show the same picture, and those that may."""
        return self.names(self.find(thumbnail))

    def find(self, thumbnail: NDArray[np.uint8], before: Found | None = None) -> Found:
        """Return where an image's near-duplicates are; after ``before``, only what was added since is searched."""
        if before is None:
            query = extract_features(thumbnail[None])
            before = Found(query, 0, np.empty(0, np.int64), np.empty(0, np.float32))
        with self._lock:  # not during the search: images are only added behind, or to a row that is there
            features, size = self._features, self._size
        if before.searched == size:
            return before
        found = search(before.query, features.taken(slice(before.searched, size)))
        rows = np.concatenate([before.rows, before.searched + found.related[:, 1]])
        return Found(before.query, size, rows, np.concatenate([before.scores, found.score]))

    def names(self, found: Found) -> Neighbors:
        """Return the names of what was found, also those that were added under an equal thumbnail since."""
        is_copy = found.scores >= COPY
        with self._lock:
            copies, related = (
                [name for row in found.rows[chosen] for name in self._names[row]] for chosen in (is_copy, ~is_copy)
            )
        return Neighbors(copies, related)

    def _append(self, more: Features) -> None:
        """Append rows; the capacity doubles when it is full, so that adding an image costs little."""
        size = self._size + len(more.keys)
        if size > len(self._features.keys):
            larger = empty_features(max(size, 2 * len(self._features.keys)))
            for array, before in zip(larger.arrays(), self._features.arrays(), strict=True):
                array[: self._size] = before[: self._size]
            self._features = larger
        for array, new in zip(self._features.arrays(), more.arrays(), strict=True):
            array[self._size : size] = new
        self._size = size
