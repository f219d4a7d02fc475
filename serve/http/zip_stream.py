"""A folder's files as one ZIP archive that is made while it is sent; neither memory nor disk holds it."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_BLOCK = 2**20
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of ZIP's calendar: the same files give the same archive


class _Outlet(io.RawIOBase):
    """What an archive is written to: keeps the bytes until they are taken. It cannot seek, and ``zipfile`` can tell."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._kept += data
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = bytes(self._kept)
        self._kept.clear()
        return taken


def packed(folder: Path, names: Iterable[str], top: str) -> Iterator[bytes]:
    """Pack files without compressing them: weights hardly shrink.

    Args:
        folder: Where they are.
        names: Relative to it.
        top: The one folder that the archive unpacks to.
    """
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{top}/{name}", _FIRST_DAY)
            entry.external_attr = 0o644 << 16
            entry.file_size = (folder / name).stat().st_size  # tells whether it needs the form for 4 GiB and more
            with (folder / name).open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
                    yield outlet.take()
    yield outlet.take()
