"""A disk of its own for a test, so small that it can be filled."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_INODES = 4000


class SmallDisk:
    """A mounted folder with a bounded number of bytes and of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not a byte."""
        self._ballast.mkdir()
        with (self._ballast / "file").open("wb", buffering=0) as file:
            for block in (2**20, 2**12, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(block))

    def fill_inodes(self) -> None:
        """Leave room for content, but not for one more file."""
        self._ballast.mkdir()
        with suppress(OSError):
            for number in range(2 * _INODES):
                (self._ballast / str(number)).touch()

    def free(self) -> None:
        """Make room again."""
        for file in self._ballast.iterdir():
            file.unlink()
        self._ballast.rmdir()


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[SmallDisk]:
    """Mount a small disk in memory; the test is skipped where that is not allowed."""
    folder.mkdir()
    options = f"size={mib}m,nr_inodes={_INODES}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
