"""A process's own log of records: lines that are appended, one for each answer, before the answer is given.

A prediction waits for no lock and no database: ``lesion.records.importing`` brings the lines into the database later. A
line is in the kernel's hands when :meth:`RecordLog.append` returns, so that a killed process loses none; with ``sync``
it is on the disk, and a machine that stops loses none either.
"""

import fcntl
import logging
import os
import uuid
from pathlib import Path

from lesion.core.errors import UnavailableError
from lesion.records.chain import ChainKey, content_hash

logger = logging.getLogger(__name__)

SUFFIX = ".log"
_SEGMENT_BYTES = 8 * 2**20  # after which another file is begun, so that imported ones can be removed
_MOST_UNWRITTEN = 10_000  # records that are kept in memory while the disk takes none
_MODE = 0o600


class RecordsFullError(UnavailableError):
    """No more answers can be given, since they cannot be recorded."""

    default_code = "records_full"


class RecordLog:
    """Appends records to a chain of its own; for one process, whose files no other process writes."""

    def __init__(self, folder: Path, key: ChainKey, *, sync: bool = False, segment_bytes: int = _SEGMENT_BYTES) -> None:
        self.chain = uuid.uuid4().hex
        self.number = 0  # of the last record
        self._folder = folder
        self._key = key
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._link = key.beginning(self.chain)
        self._unwritten: list[bytes] = []
        self._file: int | None = None
        self._segment = 0
        self._size = 0  # of the file, up to the end of its last whole line

    @property
    def unwritten(self) -> int:
        """The number of records that are only in memory, since the disk did not take them."""
        return len(self._unwritten)

    def check_room(self) -> None:
        """Raise a RecordsFullError if so many records wait for the disk that an answer could not be recorded."""
        if len(self._unwritten) >= _MOST_UNWRITTEN:
            raise RecordsFullError(
                f"{_MOST_UNWRITTEN:,} answers could not be recorded, since {self._folder} cannot be written. Answers "
                "are given again when there is room."
            )

    def append(self, content: str) -> None:
        """Append one record, in a single line; while the disk takes none, it is kept for the next call."""
        self.number += 1
        self._link = self._key.link(self._link, self.number, content_hash(content))
        self._unwritten.append(f"{self.number} {self._link.hex()} {content}\n".encode())
        self.write()

    def write(self) -> None:
        """Write what the disk did not take before."""
        if not self._unwritten:
            return
        waited = len(self._unwritten) > 1
        try:
            self._write_lines(b"".join(self._unwritten))
        except OSError as error:
            if not waited:
                logger.error("an answer could not be recorded in %s and is kept in memory: %s", self._folder, error)
            return
        if waited:
            logger.warning("%d answers that were kept in memory are recorded now", len(self._unwritten))
        self._unwritten.clear()

    def close(self) -> None:
        """Write what is left, and let other processes import the last file."""
        self.write()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write_lines(self, lines: bytes) -> None:
        if self._file is None or self._size >= self._segment_bytes:
            self._begin_segment()
        assert self._file is not None
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._file, lines[written:])
            if self._sync:
                os.fdatasync(self._file)
        except OSError:
            self._remove_half_lines()
            raise
        self._size += len(lines)

    def _remove_half_lines(self) -> None:
        assert self._file is not None
        try:
            os.ftruncate(self._file, self._size)
        except OSError:  # then the next line goes to another file; lines that are there twice are imported once
            os.close(self._file)
            self._file = None

    def _begin_segment(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self.chain}-{self._segment:06d}{SUFFIX}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for as long as this process lives: see importing
        if self._file is not None:
            os.close(self._file)
        self._file, self._size = file, 0
        self._segment += 1
