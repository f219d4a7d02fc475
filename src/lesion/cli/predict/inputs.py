"""Finds and reads the images of a command line, one after another, so that memory stays bounded."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lesion.core.errors import ImageError
from lesion.core.paths import is_hidden
from lesion.imaging import decode
from lesion.imaging.decode import Limits

STDIN = "-"
# What is taken from a folder; a file that is named itself is taken whatever it is called.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".dcm", ".dicom", ".gif"}
)


@dataclass(frozen=True, slots=True)
class Item:
    """One image to predict.

    Attributes:
        name: The path as given or found; ``-`` for standard input.
        content: Its bytes, or why they could not be read.
    """

    name: str
    content: bytes | ImageError


def find(names: Iterable[str]) -> Iterator[str]:
    """Yield the files that names stand for: folders are searched recursively, in the order of names."""
    for name in names:
        if name != STDIN and Path(name).is_dir():
            yield from _walk(name)
        else:
            yield name


def read_all(names: Iterable[str], limits: Limits, stdin: BinaryIO) -> Iterator[Item]:
    """Read each file when it is asked for."""
    for name in names:
        try:
            yield Item(name, _read_stdin(stdin, limits) if name == STDIN else decode.read(Path(name), limits))
        except ImageError as error:
            yield Item(name, error)


def listed(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the paths of a list, one a line; any byte but a line break may be in a name."""
    for line in lines:
        name = line.rstrip(b"\r\n")
        if name:
            yield os.fsdecode(name)


def batches(items: Iterable[Item], size: int, max_bytes: int = 64 * 2**20) -> Iterator[list[Item]]:
    """Group items into batches of at most ``size``, and of little more than ``max_bytes``."""
    batch: list[Item] = []
    held = 0
    for item in items:
        batch.append(item)
        held += len(item.content) if isinstance(item.content, bytes) else 0
        if len(batch) >= size or held >= max_bytes:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def printable(name: str) -> str:
    """Return a file name that a terminal cannot take for a command: escapes for control and undecodable characters."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


def _walk(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        print(f"The folder {printable(folder)} cannot be read: {error.strerror}.", file=sys.stderr)
        return
    for entry in entries:
        if is_hidden(Path(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False):  # a link to a folder could lead round in circles
            yield from _walk(entry.path)
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            yield entry.path


def _read_stdin(stdin: BinaryIO, limits: Limits) -> bytes:
    data = stdin.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"Standard input holds more than {limits.max_bytes:,} bytes, the limit. Send one smaller image.",
            code="image_too_many_bytes",
            status=413,
        )
    return data
