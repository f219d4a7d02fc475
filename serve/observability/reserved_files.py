"""Files of prometheus-client whose room on the disk is reserved before anything is written to them.

prometheus-client maps sparse files into memory. If the disk is full when a part without room is written, the kernel
ends the process (SIGBUS). Here a file has its room from the start; without room, its metrics stand still.
"""

import logging
import os
from typing import Any

from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

ROOM = 2**18  # bytes of a new file: about 1,500 series


class ReservedDict(MmapedDict):
    """A file of values by key, as ``MmapedDict``; what the disk has no room for is kept by this process alone."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._kept: dict[str, tuple[float, float]] = {}
        self._has_warned = False
        self._is_stored = read_mode or self._reserve(filename, ROOM)
        if self._is_stored:
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def read_value(self, key: str) -> tuple[float, float]:
        """Return a value and its time; a new one is 0."""
        if self._has_room(key):
            value, timestamp = super().read_value(key)  # type: ignore[no-untyped-call]
            return value, timestamp
        return self._kept.get(key, (0.0, 0.0))

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Store a value, if there is room for it."""
        if self._has_room(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        else:
            self._kept[key] = value, timestamp

    def close(self) -> None:
        """Close the file."""
        if self._is_stored:
            super().close()  # type: ignore[no-untyped-call]

    def _has_room(self, key: str) -> bool:
        """Return whether a key has its place in the file, or can have one; reserve more room where it is needed."""
        if not self._is_stored or key in self._kept:
            return False
        this: Any = self  # its attributes have no types
        if key in this._positions:
            return True
        needed = this._used + len(key.encode()) + 32
        if needed <= this._capacity:
            return True
        return self._reserve(this._fname, 2 * max(this._capacity, needed))

    def _reserve(self, filename: str, size: int) -> bool:
        """Reserve room for a file on the disk; return whether there was enough."""
        try:
            file = os.open(filename, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(file, 0, size)
            finally:
                os.close(file)
        except OSError as error:
            if not self._has_warned:
                logger.warning("some metrics stand still: there is no room for %s (%s)", filename, error.strerror)
            self._has_warned = True
            return False
        return True
