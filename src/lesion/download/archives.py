"""ZIP archives of strangers, unpacked without surprises."""

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from lesion.core.errors import DataError

MAX_ENTRIES = 500_000
MAX_BYTES = 40 * 2**30
WANTED = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".csv", ".json", ".txt", ".md"})
_BLOCK = 2**20


def unpack(archive: Path, folder: Path, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> int:
    """Unpack the images and tables of a ZIP archive; other files, archives among them, are left out.

    The whole archive is refused, before anything is written, if one entry would leave the folder, is a link or a
    device, is encrypted or comes twice. The bytes really written are counted: what an entry says of its size may be a
    lie.

    Args:
        archive: The file.
        folder: Where to; made if it is missing.
        max_entries: Entries the archive may have.
        max_bytes: Bytes all wanted entries together may unpack to.

    Returns:
        The number of files written.

    Raises:
        DataError: archive_refused, with the entry at fault, or disk_full.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = _checked(archive, source.infolist(), max_entries)
            declared = sum(entry.file_size for entry in entries)
            if declared > max_bytes:
                raise _refused(archive, f"it would unpack to {declared:,} bytes, more than the {max_bytes:,} allowed")
            folder.mkdir(parents=True, exist_ok=True)
            require_space(folder, declared)
            left = max_bytes
            for entry in entries:
                left = _extract(archive, source, entry, folder, left)
            return len(entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise _refused(archive, f"it is damaged or no ZIP archive ({error})") from error


def require_space(folder: Path, needed: int) -> None:
    """Refuse what does not fit on the disk, before it is begun.

    Raises:
        DataError: disk_full.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{needed:,} bytes are needed in {folder}, but only {free:,} are free; make room or choose another folder.",
            code="disk_full",
        )


def _refused(archive: Path, why: str) -> DataError:
    return DataError(
        f"The archive {archive.name} is not unpacked because {why}; fetch it again from a source you trust.",
        code="archive_refused",
    )


def entry_fault(entry: zipfile.ZipInfo) -> str | None:
    """Say what makes an entry unfit to be unpacked, as the rest of a sentence about it; None if nothing does."""
    name, path, mode = entry.filename, PurePosixPath(entry.filename), entry.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        return "leads out of the folder"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return "is encrypted" if entry.flag_bits & 0x1 else None


def _checked(archive: Path, entries: list[zipfile.ZipInfo], max_entries: int) -> list[zipfile.ZipInfo]:
    """The entries to write, after all of them have been looked at."""
    if len(entries) > max_entries:
        raise _refused(archive, f"it has {len(entries):,} entries, more than the {max_entries:,} allowed")
    seen, wanted = set[str](), []
    for entry in entries:
        name, path = entry.filename, PurePosixPath(entry.filename)
        if fault := entry_fault(entry):
            raise _refused(archive, f"its entry {name!r} {fault}")
        if entry.is_dir():
            continue
        if str(path).casefold() in seen:
            raise _refused(archive, f"its entry {name!r} comes twice")
        seen.add(str(path).casefold())
        if path.suffix.lower() in WANTED:
            wanted.append(entry)
    return wanted


def _extract(archive: Path, source: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one entry; returns how many bytes may still follow."""
    target = folder.joinpath(*PurePosixPath(entry.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(entry) as packed, target.open("wb") as file:
        while block := packed.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise _refused(
                    archive, f"it unpacks to more bytes than it says and than are allowed ({entry.filename!r})"
                )
            file.write(block)
    return left
