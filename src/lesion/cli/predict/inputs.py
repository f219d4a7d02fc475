"""Find and read the images of a command line, one after another, so that memory stays bounded."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lesion.core.errors import ImageError
from lesion.core.paths import is_hidden
from lesion.imaging import decode
from lesion.imaging.file_types import is_image
from lesion.imaging.limits import Limits, too_many_bytes

STDIN = "-"
_REPORTED = ".gif"  # picked up from a folder although it cannot be decoded, so that the user reads why


@dataclass(frozen=True, slots=True)
class Item:
    """One image to predict."""

    name: str  # its path; ``-`` for standard input
    content: bytes | ImageError  # its bytes, or why they could not be read


def expand_folders(names: Iterable[str]) -> Iterator[str]:
    """Yield file names: those given, and those in given folders, searched recursively in the order of names."""
    for name in names:
        if name != STDIN and Path(name).is_dir():
            yield from _walk(name)
        else:
            yield name


def read_all(names: Iterable[str], limits: Limits, stdin: BinaryIO) -> Iterator[Item]:
    """Read each file when the iterator reaches it."""
    for name in names:
        try:
            yield Item(name, _read_stdin(stdin, limits) if name == STDIN else decode.read(Path(name), limits))
        except ImageError as error:
            yield Item(name, error)


def read_names(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the paths of a list with one path per line; a name may contain any byte except a line break."""
    for line in lines:
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)


def batches(items: Iterable[Item], size: int, max_bytes: int = 64 * 2**20) -> Iterator[list[Item]]:
    """Group items into batches of at most ``size`` items, and of little more than ``max_bytes``."""
    batch: list[Item] = []
    batch_bytes = 0
    for item in items:
        batch.append(item)
        batch_bytes += len(item.content) if isinstance(item.content, bytes) else 0
        if len(batch) >= size or batch_bytes >= max_bytes:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def printable(name: str) -> str:
    """Escape the control and undecodable characters of a file name, which a terminal could read as commands."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


def _walk(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        print(f"The folder {printable(folder)} cannot be read: {error.strerror}.", file=sys.stderr)
        return
    for entry in entries:
        if is_hidden(Path(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False):  # a link to a folder could lead back to its parent
            yield from _walk(entry.path)
        elif is_image(Path(entry.path)) or entry.name.lower().endswith(_REPORTED):
            yield entry.path


def _read_stdin(stdin: BinaryIO, limits: Limits) -> bytes:
    data = stdin.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise too_many_bytes(f"Standard input has more than {limits.max_bytes:,} bytes", limits)
    return data
