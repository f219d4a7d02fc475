"""Read the images of an uploaded ZIP archive in ImageFolder layout, one after the other; the archive is not trusted."""

import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from lesion.core.errors import DataError, LesionError
from lesion.core.paths import is_hidden
from lesion.core.text import join_names
from lesion.download.archives import ArchiveRefusedError, entry_fault, overlapping
from lesion.intake.archive_layout import (
    START_BYTES,
    begins_as_archive,
    classes_of,
    entry_name,
    expected_layout,
    found_folders,
    has_archive_name,
    other_archive,
)

_BLOCK = 2**18
_END, _END_BYTES, _END64_LOCATOR, _LOCATOR_BYTES = b"PK\x05\x06", 22, b"PK\x06\x07", 20
_END64, _END64_BYTES = b"PK\x06\x06", 56
_MAX_COMMENT = 2**16
_DIRECTORY_BYTES_PER_ENTRY = 1024
_HARMLESS_BYTES = 2**20  # a file up to this size may have any ratio
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may need gigabytes to unpack a few bytes
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """Limits of an uploaded archive."""

    max_entries: int = 1000  # number of files and folders
    max_bytes: int = 512 * 2**20  # unpacked bytes of all files together
    max_file_bytes: int = 20 * 2**20
    max_ratio: int = 200  # unpacked size of a file of more than 1 MiB, divided by its packed size


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
    file is in. A file whose folders, whose copy in the archive or whose ``label`` say another class is refused
    (``label_ambiguous``). Nothing is written to the disk, and one file is in memory at a time. The bytes are counted
    while they are unpacked, because an entry may lie about its size. Folders, hidden and system files are skipped.

    A file that is not a ZIP archive, exceeds the limits, contains no file to read or, without a ``label``, no folder of
    a class is an ArchiveRefusedError.
    """
    with _open(file, limits) as archive:
        entries = _files(archive, label, classes)
        faults = _contradictions(entries, classes)
        seen, bytes_left = set[str](), limits.max_bytes
        for entry, labels in entries:
            content = _read(archive, entry, limits, bytes_left, repeated=entry.filename in seen)
            seen.add(entry.filename)
            if isinstance(content, bytes):
                bytes_left -= len(content)
                if not labels:
                    content = _file_error(entry, "it is not in a folder that names its class", "label_missing")
                elif fault := faults.get(entry.filename):
                    content = _file_error(entry, fault, "label_ambiguous")
            yield LabeledFile(entry.filename, labels[-1] if labels else "", content)


Entry = tuple[zipfile.ZipInfo, list[str]]  # a file of an archive, and the classes that it is said to have


def _files(archive: zipfile.ZipFile, label: str | None, classes: Collection[str]) -> list[Entry]:
    """Return the files to read, and refuse an archive in which nothing can be used."""
    files = list[Entry]()
    for entry in archive.infolist():
        entry.filename = entry_name(entry, classes)
        path = PurePosixPath(entry.filename)
        if entry.is_dir() or (is_hidden(path) and not entry_fault(entry)):
            continue
        found = classes_of(entry.filename, classes)
        if label is None:
            files.append((entry, found or list(path.parts[:-1][-1:])))
        else:
            files.append((entry, list(dict.fromkeys([*found, label]))))
    if not files:
        raise _archive_error("it contains no file except hidden ones", classes)
    if all(entry.flag_bits & _ENCRYPTED for entry, _ in files):
        raise _archive_error("all of its files are encrypted; send it without a password", classes)
    if label is None and classes and not any(set(labels) & set(classes) for _, labels in files):
        folders = found_folders([entry.filename for entry, _ in files])
        raise _archive_error(
            f"none of its folders is called like a class: its files are in {folders}. The classes are "
            f"{join_names(classes, 20)}",
            classes,
        )
    return files


def _contradictions(entries: Sequence[Entry], classes: Collection[str]) -> dict[str, str]:
    """Return why files are refused that have several classes: by their folders, or since a copy has another one."""
    faults = {
        entry.filename: f"several classes are given for it ({' and '.join(labels)})"
        for entry, labels in entries
        if len(labels) > 1
    }
    copies = defaultdict[tuple[int, int], list[Entry]](list)
    for entry, labels in entries:
        if entry.file_size and len(labels) == 1 and (not classes or labels[0] in classes):
            copies[entry.CRC, entry.file_size].append((entry, labels))  # zipfile checks the CRC of what it reads
    for same in copies.values():
        if len({labels[0] for _, labels in same}) > 1:
            for entry, labels in same:
                other = next(other for other, others in same if others != labels)
                faults[entry.filename] = f"the same file is in it as {other.filename[-100:]!r}, under another class"
    return faults


def _open(file: IO[bytes], limits: ZipLimits) -> zipfile.ZipFile:
    """Open an archive after checking the size of its table of contents and the sizes that it declares."""
    file.seek(0)
    if kind := other_archive(file.read(START_BYTES)):
        raise _archive_error(f"it is a {kind}, not a ZIP archive, whatever its name is")
    _check_directory(file, limits)
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGED as error:
        raise _archive_error(f"it is damaged or not a ZIP archive ({error})") from error
    entries = archive.infolist()
    if len(entries) > limits.max_entries:
        raise _archive_error(f"it has {len(entries):,} entries, more than the {limits.max_entries:,} allowed")
    if overlapping(entries):
        raise _archive_error("its files overlap")
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
    if has_archive_name(entry.filename):
        return nested
    try:
        data = _unpack(archive, entry, limits, bytes_left)
    except _DAMAGED as error:
        return _file_error(entry, f"it is damaged ({error})", "archive_entry_refused")
    return nested if isinstance(data, bytes) and begins_as_archive(data) else data


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


def _archive_error(reason: str, classes: Collection[str] = ()) -> ArchiveRefusedError:
    """Return the refusal of an archive, with the layout that is expected as a small tree in further lines."""
    return ArchiveRefusedError(
        f"The archive is refused because {reason}. Send a plain ZIP file with one folder for each class:\n"
        f"{expected_layout(classes)}"
    )
