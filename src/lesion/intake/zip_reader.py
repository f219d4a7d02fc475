"""Images out of an uploaded ZIP archive in ImageFolder layout, one after the other and without surprises."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from lesion.core.errors import DataError, LesionError
from lesion.core.paths import is_hidden
from lesion.download.archives import entry_fault

_BLOCK = 2**18
_END, _END_BYTES, _END64_LOCATOR, _LOCATOR_BYTES = b"PK\x05\x06", 22, b"PK\x06\x07", 20
_MAX_COMMENT = 2**16
_DIRECTORY_BYTES_AN_ENTRY = 1024
_SMALL = 2**20  # below, any ratio is harmless
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ\x00")
_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may take gigabytes to unpack a few bytes
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """What an uploaded archive may hold.

    Attributes:
        max_entries: Files and folders.
        max_bytes: Bytes that all files together unpack to.
        max_file_bytes: Bytes that one file unpacks to.
        max_ratio: How many times its packed size a file of more than 1 MiB may unpack to.
    """

    max_entries: int = 1000
    max_bytes: int = 512 * 2**20
    max_file_bytes: int = 20 * 2**20
    max_ratio: int = 200


class Member(NamedTuple):
    """A file of an archive.

    Attributes:
        name: Its name in there, as a stranger chose it: never a path to write to.
        label: Its class: the folder it lies in, or the label that was given for all; unchecked.
        content: Its bytes, or why it alone is refused.
    """

    name: str
    label: str
    content: bytes | LesionError


def members(file: IO[bytes], limits: ZipLimits, label: str | None = None) -> Iterator[Member]:
    """Read the files of a ZIP archive: ``class/*``, whatever folders lie above, or ``*`` with one ``label`` for all.

    Nothing is written to the disk, and one file is in memory at a time. The bytes really unpacked are counted: what an
    entry says of its size may be a lie. Folders, hidden files and the litter of operating systems are passed over.

    Args:
        file: The archive; seekable.
        limits: What it may hold.
        label: The class of every file, whatever folder it lies in.

    Raises:
        DataError: archive_refused: it is no ZIP archive, or holds more than the limits allow.
    """
    with _opened(file, limits) as archive:
        seen, left = set[str](), limits.max_bytes
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or (_litter(path) and not entry_fault(entry)):
                continue
            found = label if label is not None else path.parent.name
            content = _content(archive, entry, limits, left, doubled=entry.filename in seen)
            seen.add(entry.filename)
            if isinstance(content, bytes):
                left -= len(content)
                if label is None and not found:
                    content = _refusal(entry, "it lies in no folder that names its class", "label_missing")
            yield Member(entry.filename, found, content)


def _opened(file: IO[bytes], limits: ZipLimits) -> zipfile.ZipFile:
    """Open an archive whose table of contents is small enough to be read."""
    _check_directory(file, limits)
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGED as error:
        raise _refused(f"it is damaged or no ZIP archive ({error})") from error
    entries = archive.infolist()
    if len(entries) > limits.max_entries:
        raise _refused(f"it has {len(entries):,} entries, more than the {limits.max_entries:,} allowed")
    declared = sum(entry.file_size for entry in entries)
    if declared > limits.max_bytes:
        raise _refused(f"it would unpack to {declared:,} bytes, more than the {limits.max_bytes:,} allowed")
    return archive


def _check_directory(file: IO[bytes], limits: ZipLimits) -> None:
    """Refuse a table of contents that would fill the memory; ``zipfile`` reads it whole, however long it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _MAX_COMMENT - _LOCATOR_BYTES))
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or end + _END_BYTES > len(tail):
        raise _refused("it is no ZIP archive, or its end is missing")
    if tail[max(0, end - _LOCATOR_BYTES) : end].startswith(_END64_LOCATOR):
        raise _refused("it is of the kind for more than 4 GiB")
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    if directory > limits.max_entries * _DIRECTORY_BYTES_AN_ENTRY:
        raise _refused(f"its table of contents is too long for the {limits.max_entries:,} entries allowed")


def _content(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ZipLimits, left: int, *, doubled: bool
) -> bytes | LesionError:
    """Unpack one file, or say why it is refused."""
    fault = entry_fault(entry) or ("comes twice" if doubled else None)
    if fault:
        return _refusal(entry, f"it {fault}", "archive_entry_refused")
    if entry.compress_type not in _METHODS:
        return _refusal(entry, "it is packed in a way that is not taken; use deflate", "archive_entry_refused")
    nested = _refusal(entry, "it is an archive itself; send its images", "archive_nested")
    if PurePosixPath(entry.filename).suffix.lower() in _ARCHIVE_SUFFIXES:
        return nested
    try:
        data = _unpacked(archive, entry, limits, left)
    except _DAMAGED as error:
        return _refusal(entry, f"it is damaged ({error})", "archive_entry_refused")
    return nested if isinstance(data, bytes) and data.startswith(_ARCHIVES) else data


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ZipLimits, left: int) -> bytes | LesionError:
    longest = max(_SMALL, limits.max_ratio * entry.compress_size)
    parts, size = list[bytes](), 0
    with archive.open(entry) as packed:
        while block := packed.read(_BLOCK):
            size += len(block)
            if size > left:
                raise _refused(f"it unpacks to more than the {limits.max_bytes:,} bytes allowed")
            if size > limits.max_file_bytes:
                return _refusal(
                    entry, f"it has more than the {limits.max_file_bytes:,} bytes allowed", "image_too_many_bytes"
                )
            if size > longest:
                return _refusal(entry, f"it unpacks to more than {limits.max_ratio} times its size", "archive_bomb")
            parts.append(block)
    return b"".join(parts)


def _litter(path: PurePosixPath) -> bool:
    return is_hidden(path) or path.name in ("Thumbs.db", "desktop.ini")


def _refusal(entry: zipfile.ZipInfo, why: str, code: str) -> LesionError:
    return DataError(f"The file {entry.filename[-100:]!r} of the archive is refused because {why}.", code=code)


def _refused(why: str) -> DataError:
    return DataError(
        f"The archive is refused because {why}. Send a plain ZIP file with one folder for each class.",
        code="archive_refused",
    )
