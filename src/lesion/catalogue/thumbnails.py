"""Small pictures of stored images, made by the one decoder."""

import hashlib
import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.core.errors import ImageError
from lesion.database.object_store import ObjectStore, StoreError, image_key
from lesion.database.tables import ACCEPTED, Image
from lesion.imaging.decode import DEFAULT_LIMITS, Limits, decode
from lesion.imaging.heatmap import png
from lesion.imaging.montage import montage

_TILE = 112  # pixels
_SHEETS = 16  # kept in memory, each up to a megabyte
_decoders = ThreadPoolExecutor(2, "pictures")  # two, however many requests: a decoded image may fill 150 MB


def thumbnail(store: ObjectStore, sha256: str, side: int, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Return a stored image with its longer side reduced to at most ``side`` pixels, (H, W, 3).

    Raises:
        StoreError: Its file is gone (``file_gone``), or the store does not answer.
        ImageError: It is refused under these limits.
    """
    return _decoders.submit(_reduced, store, sha256, side, limits).result()


def sample(session: Session, label: str, count: int, seed: int) -> tuple[str, ...]:
    """Draw accepted images of a class by lot; an image that comes or goes changes the draw by one at most.

    Returns:
        Their hashes; all of them when there are no more than ``count``.
    """
    hashes = session.scalars(select(Image.sha256).where(Image.status == ACCEPTED, Image.label == label))
    return tuple(heapq.nsmallest(count, hashes, key=lambda one: hashlib.sha256(f"{seed} {one}".encode()).digest()))


@lru_cache(maxsize=_SHEETS)
def contact_sheet(store: ObjectStore, hashes: Sequence[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Lay stored images out in rows, as a PNG file; those that were deleted meanwhile are left out.

    Args:
        store: Where they are.
        hashes: A tuple of their hashes.
        limits: What is not decoded, and left out.

    Raises:
        StoreError: The store does not answer.
    """

    def tile(sha256: str) -> NDArray[np.uint8] | None:
        try:
            return _reduced(store, sha256, _TILE, limits)
        except ImageError:
            return None
        except StoreError as error:
            if error.code != "file_gone":
                raise
            return None

    tiles = [found for found in _decoders.map(tile, hashes) if found is not None]
    return png(np.asarray(montage(tiles, side=_TILE)))


def _reduced(store: ObjectStore, sha256: str, side: int, limits: Limits) -> NDArray[np.uint8]:
    picture = Pillow.fromarray(decode(store.get(image_key(sha256)), limits, at_least=side))
    picture.thumbnail((side, side))
    return np.asarray(picture)
