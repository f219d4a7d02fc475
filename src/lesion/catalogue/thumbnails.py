"""Thumbnails and contact sheets of stored images, made with the decoder of predictions."""

import hashlib
import heapq
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.core.errors import ImageError
from lesion.database.object_store import DamagedFileError, ObjectNotFoundError, ObjectStore, StoreError
from lesion.database.tables import ACCEPTED, Image
from lesion.imaging.decode import decode
from lesion.imaging.heatmap import encode_png
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from lesion.imaging.montage import montage

logger = logging.getLogger(__name__)

_TILE = 112  # pixels
_WAIT_S = 20.0  # for a picture: a store that hangs must not keep the threads of all requests
_CACHED_SHEETS = 16  # each up to 1 MB
_decoders = ThreadPoolExecutor(2, "thumbnails")  # only two for all requests: a decoded image may take 350 MB


def thumbnail(store: ObjectStore, sha256: str, side: int, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Return a stored image with its longer side reduced to at most ``side`` pixels, (H, W, 3).

    Raises:
        ObjectNotFoundError: Its file was removed.
        StoreError: The store does not answer, or not within 20 seconds.
        DamagedFileError: Its file was replaced by another one.
        ImageError: It exceeds the limits.
    """
    waiting = _decoders.submit(_reduce, store, sha256, side, limits)
    try:
        return waiting.result(_WAIT_S)
    except TimeoutError as error:
        waiting.cancel()
        raise _late() from error


def sample(session: Session, label: str, count: int, seed: int) -> tuple[str, ...]:
    """Return the hashes of at most ``count`` random accepted images of a class.

    The same seed draws the same images; adding or removing one image changes the sample by at most one.
    """
    hashes = session.scalars(select(Image.sha256).where(Image.status == ACCEPTED, Image.label == label))
    return tuple(heapq.nsmallest(count, hashes, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest()))


@lru_cache(maxsize=_CACHED_SHEETS)
def contact_sheet(store: ObjectStore, hashes: Sequence[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return a PNG file with images in rows, without those that were deleted, are damaged or exceed the limits.

    The result is cached, so ``hashes`` must be a tuple. A StoreError tells that the store does not answer.
    """

    def tile(sha256: str) -> NDArray[np.uint8] | None:
        try:
            return _reduce(store, sha256, _TILE, limits)
        except (ImageError, ObjectNotFoundError):
            return None
        except DamagedFileError as error:
            logger.error("%s", error.message)
            return None

    try:
        tiles = [pixels for pixels in _decoders.map(tile, hashes, timeout=_WAIT_S) if pixels is not None]
    except TimeoutError as error:  # what has not begun is cancelled
        raise _late() from error
    return encode_png(np.asarray(montage(tiles, side=_TILE)))


def _late() -> StoreError:
    return StoreError(f"The store gave no picture within {_WAIT_S:g} seconds. Try again.", code="store_slow")


def _reduce(store: ObjectStore, sha256: str, side: int, limits: Limits) -> NDArray[np.uint8]:
    data = store.get_image(sha256)
    limits = replace(limits, max_bytes=max(limits.max_bytes, len(data)))  # kept DICOM is larger than what was sent
    picture = Pillow.fromarray(decode(data, limits, target_side=side))
    picture.thumbnail((side, side))
    return np.asarray(picture)
