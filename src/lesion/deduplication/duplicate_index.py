"""A search index for near-duplicates that grows image by image: uploads are compared with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.duplicates import search
from lesion.deduplication.features import SIDE, Features, Thumbnails, extract_features


class DuplicateIndex:
    """Named images with which single images are compared; the matches are those of ``near_duplicates_of``.

    The features of an image are computed once, when it is added, and take about 7 KB. Not safe to use from two threads
    at once.
    """

    def __init__(self) -> None:
        self._features = extract_features(np.empty((0, SIDE, SIDE), np.uint8))  # rows from ``_size`` on are spare
        self._size = 0
        self._rows: dict[bytes, int] = {}
        self._names: list[list[str]] = []  # images with equal thumbnails share a row

    def __len__(self) -> int:
        return sum(map(len, self._names))

    def add(self, thumbnails: Thumbnails, names: Sequence[str]) -> None:
        """Add images under the names that :meth:`query` returns."""
        new_thumbnails = []
        for thumbnail, name in zip(thumbnails, names, strict=True):
            row = self._rows.setdefault(thumbnail.tobytes(), len(self._names))
            if row == len(self._names):
                self._names.append([])
                new_thumbnails.append(thumbnail)
            self._names[row].append(name)
        if new_thumbnails:
            self._append(extract_features(np.stack(new_thumbnails)))

    def query(self, thumbnail: NDArray[np.uint8]) -> list[str]:
        """Return the names of the images that show the same picture, in the order in which they were added."""
        features = extract_features(thumbnail[None])
        matches = search(features, self._features.rows(slice(self._size)), later_only=False)
        return [name for row in np.sort(matches[:, 1]) for name in self._names[row]]

    def _append(self, more: Features) -> None:
        """Append rows; the capacity doubles when it is full, so that adding an image costs little."""
        size = self._size + len(more.plain)
        if size > len(self._features.plain):
            capacity = max(size, 2 * len(self._features.plain))
            self._features = Features(*(_enlarged(array, capacity) for array in self._features))
        new_rows = self._features.rows(slice(self._size, size))
        new_rows.plain[:], new_rows.zoomed[:], new_rows.fine[:] = more
        self._size = size


def _enlarged(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    larger = np.empty((capacity, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
