"""Read the images of an uploaded ZIP archive in ImageFolder layout, one after the other; the archive is not trusted."""

import os
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from lesion.core.errors import DataError, LesionError
from lesion.core.paths import is_hidden
from lesion.download.archives import ArchiveRefusedError, entry_fault
from lesion.intake.uploads import match_class

_BLOCK = 2**18
_END, _END_BYTES, _END64_LOCATOR, _LOCATOR_BYTES = b"PK\x05\x06", 22, b"PK\x06\x07", 20
_END64, _END64_BYTES = b"PK\x06\x06", 56
_MAX_COMMENT = 2**16
_DIRECTORY_BYTES_PER_ENTRY = 1024
_HARMLESS_BYTES = 2**20  # a file up to this size may have any ratio
_GZIP = b"\x1f\x8b"
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", _GZIP, b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ\x00")
_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may need gigabytes to unpack a few bytes
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """Limits of an uploaded archive."""

    max_entries: int = 1000  # number of files and folders
    max_bytes: int = 512 * 2**20  # unpacked bytes of all files together
    max_file_bytes: int = 20 * 2**20
    max_ratio: int = 200  # unpacked size of a file of more than 1 MiB, divided by its packed size


def is_archive(start: bytes, name: str) -> bool:
    """Return whether a file is an archive, of whatever kind, by its first 512 bytes or its name.

    NIfTI volumes, which are compressed in the same way, are images of a kind that the decoder names.
    """
    if (start.startswith(_ARCHIVES) and not start.startswith(_GZIP)) or start[257:262] == b"ustar":
        return True
    lower = name.lower()
    return PurePosixPath(lower).suffix in _ARCHIVE_SUFFIXES and not lower.endswith(".nii.gz")


class LabeledFile(NamedTuple):
    """An uploaded file, alone or from an archive."""

    name: str  # its name as the uploader chose it: never use it as a path to write to
    label: str  # its class, not checked yet: the folder it is in, or the label that was given for all files
    content: bytes | LesionError  # its bytes, or the error that it is refused with


def read_zip(
    file: IO[bytes], limits: ZipLimits, label: str | None = None, classes: Collection[str] = ()
) -> Iterator[LabeledFile]:
    """Read the files of a ZIP archive: ``class/*`` between any other folders, or any files with one ``label`` for all.

    The folder that is named after one of the ``classes`` is a file's label; without such a folder, the folder that the
    file is in. Nothing is written to the disk, and one file is in memory at a time. The bytes are counted while they
    are unpacked, because an entry may lie about its size. Folders, hidden files and system files are skipped.

    A file that is not a ZIP archive, exceeds the limits or contains no file to read is an ArchiveRefusedError.
    """
    with _open(file, limits) as archive:
        seen, bytes_left = set[str](), limits.max_bytes
        for entry in archive.infolist():
            entry.filename = entry.filename.replace("\\", "/")  # as some programs for Windows separate folders
            path = PurePosixPath(entry.filename)
            ignored = is_hidden(path) or path.name in ("Thumbs.db", "desktop.ini")
            if entry.is_dir() or (ignored and not entry_fault(entry)):
                continue
            labels = [label] if label is not None else _labels_of(path, classes)
            content = _read(archive, entry, limits, bytes_left, repeated=entry.filename in seen)
            seen.add(entry.filename)
            if isinstance(content, bytes):
                bytes_left -= len(content)
                if not labels:
                    content = _file_error(entry, "it is not in a folder that names its class", "label_missing")
                elif len(labels) > 1:
                    both = " and ".join(labels)
                    content = _file_error(entry, f"it is in folders of several classes ({both})", "label_ambiguous")
            yield LabeledFile(entry.filename, labels[-1] if labels else "", content)
        if not seen:
            raise _archive_error("it contains no file except hidden ones")


def _labels_of(path: PurePosixPath, classes: Collection[str]) -> list[str]:
    """Return the classes that folders of a path are named after; otherwise the folder that holds the file, if any."""
    folders = [match_class(folder, classes) for folder in path.parts[:-1]]
    return list(dict.fromkeys(folder for folder in folders if folder in classes)) or folders[-1:]


def _open(file: IO[bytes], limits: ZipLimits) -> zipfile.ZipFile:
    """Open an archive after checking the size of its table of contents and the sizes that it declares."""
    _check_directory(file, limits)
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGED as error:
        raise _archive_error(f"it is damaged or not a ZIP archive ({error})") from error
    entries = archive.infolist()
    if len(entries) > limits.max_entries:
        raise _archive_error(f"it has {len(entries):,} entries, more than the {limits.max_entries:,} allowed")
    declared = sum(entry.file_size for entry in entries)
    if declared > limits.max_bytes:
        raise _archive_error(f"it would unpack to {declared:,} bytes, more than the {limits.max_bytes:,} allowed")
    return archive


def _check_directory(file: IO[bytes], limits: ZipLimits) -> None:
    """Refuse a table of contents that would fill the memory; ``zipfile`` reads all of it, however long it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _MAX_COMMENT - _LOCATOR_BYTES - _END64_BYTES))
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or end + _END_BYTES > len(tail):
        raise _archive_error("it is not a ZIP archive, or its end is missing")
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    if tail[max(0, end - _LOCATOR_BYTES) : end].startswith(_END64_LOCATOR):
        # The record of the ZIP64 format, which zipfile reads from this very place: its sizes replace the others.
        record = tail[max(0, end - _LOCATOR_BYTES - _END64_BYTES) : end - _LOCATOR_BYTES]
        if not record.startswith(_END64):
            raise _archive_error("its end is damaged")
        directory = int.from_bytes(record[40:48], "little")
    if directory > limits.max_entries * _DIRECTORY_BYTES_PER_ENTRY:
        raise _archive_error(f"its table of contents is too long for the {limits.max_entries:,} entries allowed")


def _read(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ZipLimits, bytes_left: int, *, repeated: bool
) -> bytes | LesionError:
    """Unpack one file, or return the error that it is refused with."""
    fault = entry_fault(entry) or ("comes twice" if repeated else None)
    if fault:
        return _file_error(entry, f"it {fault}", "archive_entry_refused")
    if entry.compress_type not in _METHODS:
        return _file_error(entry, "its compression method is not supported; use deflate", "archive_entry_refused")
    nested = _file_error(entry, "it is an archive itself; send its images", "archive_nested")
    if PurePosixPath(entry.filename).suffix.lower() in _ARCHIVE_SUFFIXES:
        return nested
    try:
        data = _unpack(archive, entry, limits, bytes_left)
    except _DAMAGED as error:
        return _file_error(entry, f"it is damaged ({error})", "archive_entry_refused")
    return nested if isinstance(data, bytes) and data.startswith(_ARCHIVES) else data


def _unpack(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ZipLimits, bytes_left: int
) -> bytes | LesionError:
    max_size = max(_HARMLESS_BYTES, limits.max_ratio * entry.compress_size)
    most = f"{limits.max_file_bytes:,} bytes allowed"
    blocks, size = list[bytes](), 0
    with archive.open(entry) as packed:
        while block := packed.read(_BLOCK):
            size += len(block)
            if size > bytes_left:
                raise _archive_error(f"it unpacks to more than the {limits.max_bytes:,} bytes allowed")
            if size > limits.max_file_bytes:
                return _file_error(entry, f"it has more than the {most}", "image_too_many_bytes")
            if size > max_size:
                return _file_error(entry, f"it unpacks to more than {limits.max_ratio} times its size", "archive_bomb")
            blocks.append(block)
    return b"".join(blocks)


def _file_error(entry: zipfile.ZipInfo, reason: str, code: str) -> LesionError:
    return DataError(f"The file {entry.filename[-100:]!r} of the archive is refused because {reason}.", code=code)


def _archive_error(reason: str) -> ArchiveRefusedError:
    return ArchiveRefusedError(
        f"The archive is refused because {reason}. Send a plain ZIP file with one folder for each class."
    )
