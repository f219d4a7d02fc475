"""Unpack ZIP archives that nobody has checked, without surprises."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lesion.core.errors import DataError
from lesion.imaging.file_types import IMAGE_SUFFIXES

MAX_ENTRIES = 500_000
MAX_BYTES = 40 * 2**30
UNPACKED_SUFFIXES = IMAGE_SUFFIXES | {".csv", ".json", ".txt", ".md"}
_BLOCK = 2**20
_LEAST_HEADER_BYTES = 30  # of an entry, without its name


class ArchiveRefusedError(DataError):
    """A ZIP archive that is damaged, too large or dangerous."""

    default_code = "archive_refused"


def unpack(archive: Path, folder: Path, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> int:
    """Unpack the images and tables of a ZIP archive; skip other files, such as archives in it.

    The whole archive is refused, before anything is written, if one entry leads out of the folder, is a link or a
    device, is encrypted or comes twice. The unpacked bytes are counted, since an entry may lie about its size. The
    folder is created if it is missing; ``max_bytes`` is for all files together. Return the number of files written.

    Raises:
        ArchiveRefusedError: The archive is damaged, too large or has a refused entry.
        DataError: disk_full.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = _check_entries(archive, source.infolist(), max_entries)
            declared = sum(entry.file_size for entry in entries)
            if declared > max_bytes:
                raise _refused(archive, f"it would unpack to {declared:,} bytes, more than the {max_bytes:,} allowed")
            folder.mkdir(parents=True, exist_ok=True)
            require_space(folder, declared)
            bytes_left = max_bytes
            for entry in entries:
                bytes_left = _extract(archive, source, entry, folder, bytes_left)
            return len(entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise _refused(archive, f"it is damaged or not a ZIP archive ({error})") from error


def require_space(folder: Path, needed: int) -> None:
    """Raise a DataError (disk_full) if data does not fit on the disk, before any of it is written."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{needed:,} bytes are needed in {folder}, but only {free:,} are free; make room or choose another folder.",
            code="disk_full",
        )


def entry_fault(entry: zipfile.ZipInfo) -> str | None:
    """Return why an entry must not be unpacked, as the rest of a sentence about it; None if it may be unpacked."""
    name, path, mode = entry.filename, PurePosixPath(entry.filename), entry.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        return "leads out of the folder"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return "is encrypted" if entry.flag_bits & 0x1 else None


def overlapping(entries: Iterable[zipfile.ZipInfo]) -> bool:
    """Return whether entries share bytes of an archive, which so unpacks to many times what its size allows."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            return True
        end = entry.header_offset + _LEAST_HEADER_BYTES + entry.compress_size
    return False


def _refused(archive: Path, reason: str) -> ArchiveRefusedError:
    return ArchiveRefusedError(
        f"The archive {archive.name} is not unpacked because {reason}; download it again from a source you trust."
    )


def _check_entries(archive: Path, entries: list[zipfile.ZipInfo], max_entries: int) -> list[zipfile.ZipInfo]:
    """Check all entries and return those to unpack."""
    if len(entries) > max_entries:
        raise _refused(archive, f"it has {len(entries):,} entries, more than the {max_entries:,} allowed")
    if overlapping(entries):
        raise _refused(archive, "its entries overlap")
    files = dict[str, zipfile.ZipInfo]()
    for entry in entries:
        path = str(PurePosixPath(entry.filename)).casefold()
        fault = entry_fault(entry) or ("comes twice" if path in files else None)
        if fault:
            raise _refused(archive, f"its entry {entry.filename!r} {fault}")
        if not entry.is_dir():
            files[path] = entry
    return [entry for path, entry in files.items() if PurePosixPath(path).suffix in UNPACKED_SUFFIXES]


def _extract(archive: Path, source: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, bytes_left: int) -> int:
    """Write one entry; return how many bytes may still follow."""
    target = folder.joinpath(*PurePosixPath(entry.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(entry) as packed, target.open("wb") as file:
        while block := packed.read(_BLOCK):
            bytes_left -= len(block)
            if bytes_left < 0:
                raise _refused(
                    archive, f"it unpacks to more bytes than it declares and are allowed ({entry.filename!r})"
                )
            file.write(block)
    return bytes_left
