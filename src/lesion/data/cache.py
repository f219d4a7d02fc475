"""Decoded images on disk, so that each image is decoded once instead of once per epoch."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.core.files import bytes_sha256, write_atomically
from lesion.imaging.decode import read
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from lesion.imaging.preprocessing import Preprocessing

logger = logging.getLogger(__name__)


class PixelCache:
    """A folder with one file of raw pixels per image, named by the SHA-256 of the image file.

    Several processes may share the folder: files are written under another name and renamed, so that a killed process
    leaves no incomplete entry. When the disk is full, each process logs that once and writes no more. Each setting of
    ``preprocessing`` has its own subfolder; without a ``folder`` the cache is off. ``limits`` bound what is decoded.
    """

    def __init__(self, folder: Path | None, preprocessing: Preprocessing, limits: Limits = DEFAULT_LIMITS) -> None:
        self.preprocessing = preprocessing
        self.limits = limits
        self._shape = (preprocessing.size, preprocessing.size, 3)
        key = hashlib.sha256(json.dumps(preprocessing.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
        self._folder = folder / key if folder is not None else None
        self._writable = folder is not None

    def get(self, path: Path, sha256: str) -> NDArray[np.uint8]:
        """Return the preprocessed pixels, (S, S, 3) uint8, of the image file ``path``, whose SHA-256 is ``sha256``.

        If it is not cached, raise an ImageError if it cannot be decoded, and a DataError if its SHA-256 is another one.
        """
        entry = self._folder / sha256[:2] / f"{sha256}.rgb" if self._folder else None
        cached = self._load(entry) if entry else None
        if cached is not None:
            return cached
        data = read(path, self.limits)
        if bytes_sha256(data) != sha256:
            raise DataError(
                f"'{path}' is not the file that the manifest describes: it has changed since, or data.root is another "
                "folder. Put the file back, or make a new manifest."
            )
        pixels = self.preprocessing.read(data, self.limits)
        if entry and self._writable:
            self._store(entry, pixels)
        return pixels

    def _load(self, entry: Path) -> NDArray[np.uint8] | None:
        try:
            pixels = np.fromfile(entry, np.uint8)
        except OSError:
            return None
        return pixels.reshape(self._shape) if pixels.size == np.prod(self._shape) else None

    def _store(self, entry: Path, pixels: NDArray[np.uint8]) -> None:
        """Write an entry, readable by its owner only; an entry that is lost is decoded again."""
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(entry, pixels.tobytes(), mode=0o600, durable=False)
        except OSError as error:
            logger.warning("The cache of decoded images is full (%s): other images are decoded every epoch.", error)
            self._writable = False
