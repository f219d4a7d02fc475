"""Decoded images on disk, keyed by content, so that each is decoded once and not once an epoch."""

import hashlib
import json
import logging
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.imaging.decode import bytes_sha256, read
from lesion.imaging.preprocessing import Preprocessing

logger = logging.getLogger(__name__)


class PixelCache:
    """A folder with one file of raw pixels an image, named by the hash of the image file's bytes.

    Files are written under another name and renamed, so processes may share the folder and a killed one leaves no
    half image. When the disk is full, the cache says so once (in each process) and keeps nothing more.

    Args:
        folder: Where the cache is; None turns it off.
        preprocessing: How images become (S, S, 3) uint8; each way has its own subfolder.
    """

    def __init__(self, folder: Path | None, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self._shape = (preprocessing.size, preprocessing.size, 3)
        key = hashlib.sha256(json.dumps(preprocessing.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
        self._folder = Path(folder) / key if folder is not None else None
        self._writable = True

    def get(self, path: Path, sha256: str) -> NDArray[np.uint8]:
        """Return the preprocessed pixels, (S, S, 3) uint8, of the image file ``path`` whose bytes have hash ``sha256``.

        Raises:
            ImageError: The image is not cached and cannot be decoded.
            DataError: The image is not cached and the file has other bytes than the hash says.
        """
        cached = self._cached(sha256)
        if cached is not None:
            return cached
        data = read(path)
        if bytes_sha256(data) != sha256:
            raise DataError(
                f"'{path}' is not the file that the manifest describes: it was changed since, or data.root is another "
                "folder. Put the file back, or make a new manifest."
            )
        pixels = self.preprocessing.read(data)
        self._store(sha256, pixels)
        return pixels

    def _path(self, sha256: str) -> Path | None:
        return self._folder / sha256[:2] / f"{sha256}.rgb" if self._folder else None

    def _cached(self, sha256: str) -> NDArray[np.uint8] | None:
        path = self._path(sha256)
        try:
            pixels = np.fromfile(path, np.uint8) if path else None
        except OSError:
            return None
        return pixels.reshape(self._shape) if pixels is not None and pixels.size == np.prod(self._shape) else None

    def _store(self, sha256: str, pixels: NDArray[np.uint8]) -> None:
        path = self._path(sha256)
        if path is None or not self._writable:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, delete=False) as file:
                try:
                    file.write(pixels.tobytes())
                    file.flush()
                    Path(file.name).rename(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            logger.warning("The cache of decoded images takes no more (%s): the rest is decoded every epoch.", error)
            self._writable = False
