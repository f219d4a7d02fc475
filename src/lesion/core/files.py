"""Files that appear whole or not at all, and their SHA-256."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

PART_PREFIX = ".part-"  # of unfinished files: names with this prefix are never read


class FileFacts(TypedDict):
    """The SHA-256 of a file's content, hex, and its size."""

    sha256: str
    bytes: int


@contextmanager
def atomic_path(path: Path, *, mode: int = 0o666, durable: bool = True) -> Iterator[Path]:
    """Yield a path to write to; that file replaces ``path`` when the block ends without an error.

    Readers see the old file or the new one, never a part of it. After an error the unfinished file is removed.

    Args:
        path: The file to create or replace; its folder must exist.
        mode: Permissions of the new file, reduced by the umask of the process.
        durable: Whether the content is on the disk before the name changes, so that nothing is lost when the machine
            stops. False does not wait for the disk: for files that are written often and can be made again.

    Yields:
        An empty file in the same folder. It has the suffix of ``path``, for writers that choose a format by it.

    Raises:
        OSError: The file cannot be written; ``path`` is unchanged.
    """
    unfinished = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}{path.suffix}")
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield unfinished
        if durable:
            sync(unfinished)
        unfinished.replace(path)
        if durable:
            sync(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o666, durable: bool = True) -> None:
    """Write a file whole or not at all, see :func:`atomic_path`; text as UTF-8 without changes to its line breaks."""
    with atomic_path(path, mode=mode, durable=durable) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits, without loading it into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_facts(path: Path) -> FileFacts:
    """Return the hash and the size of a file."""
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}
