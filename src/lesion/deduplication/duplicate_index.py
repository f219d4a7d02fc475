"""A search for near-duplicates that grows image by image: what an upload is compared with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.duplicates import Descriptor, Descriptors, Pictures, pictures, search


class DuplicateIndex:
    """Named images that one image at a time is compared with; verdicts are those of ``near_duplicates_of``.

    What the search sees of an image is derived once, when it is added: about 7 KB an image. Not safe to use from two
    threads at once.
    """

    def __init__(self) -> None:
        self._pictures = pictures(Descriptors.stack([]).thumbnails)  # rows beyond ``_size`` are spare
        self._size = 0
        self._rows: dict[bytes, int] = {}
        self._keys: list[list[str]] = []  # images with equal thumbnails share a row

    def __len__(self) -> int:
        return sum(map(len, self._keys))

    def add(self, descriptors: Descriptors, keys: Sequence[str]) -> None:
        """Add images under the names by which :meth:`query` gives them back."""
        fresh = []
        for thumbnail, key in zip(descriptors.thumbnails, keys, strict=True):
            row = self._rows.setdefault(thumbnail.tobytes(), len(self._keys))
            if row == len(self._keys):
                self._keys.append([])
                fresh.append(thumbnail)
            self._keys[row].append(key)
        if fresh:
            self._append(pictures(np.stack(fresh)))

    def query(self, descriptor: Descriptor) -> list[str]:
        """Return the names of the images that show the same picture, in the order they were added."""
        one = pictures(descriptor.thumbnail[None])
        found = search(one, self._pictures.rows(slice(self._size)), later_only=False)
        return [key for row in np.sort(found[:, 1]) for key in self._keys[row]]

    def _append(self, more: Pictures) -> None:
        """Put rows behind the others; the room doubles when it is full, so that adding one costs little."""
        size = self._size + len(more.plain)
        room = len(self._pictures.plain)
        if size > room:
            room = max(size, 2 * room)
            self._pictures = Pictures(*(_with_room(part, room) for part in self._pictures))
        self._pictures.plain[self._size : size] = more.plain
        self._pictures.zoomed[self._size : size] = more.zoomed
        self._pictures.fine[self._size : size] = more.fine
        self._size = size


def _with_room(part: NDArray[Any], room: int) -> NDArray[Any]:
    larger = np.empty((room, *part.shape[1:]), part.dtype)
    larger[: len(part)] = part
    return larger
