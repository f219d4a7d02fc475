"""Packs a folder's files into a ZIP archive while it is sent; neither memory nor disk holds the whole archive."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_BLOCK = 2**20
_DATE = (1980, 1, 1, 0, 0, 0)  # ZIP's earliest, for every file: the same files give the same archive


class _Buffer(io.RawIOBase):
    """Keeps the bytes that are written until they are taken. It cannot seek, and ``zipfile`` adapts to that."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        block = bytes(self._bytes)
        self._bytes.clear()
        return block


def zip_files(folder: Path, names: Iterable[str], top: str) -> Iterator[bytes]:
    """Pack files without compression, since weights hardly shrink; yield the archive in blocks.

    Args:
        folder: Where the files are.
        names: Their paths relative to it.
        top: The one folder that the archive unpacks to.
    """
    buffer = _Buffer()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{top}/{name}", _DATE)
            entry.external_attr = 0o644 << 16
            entry.file_size = (folder / name).stat().st_size  # ZIP needs another form for 4 GiB and more
            with (folder / name).open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
                    yield buffer.take()
    yield buffer.take()
