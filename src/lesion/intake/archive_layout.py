"""What an uploaded archive is, by its first bytes, and what its folders say about the classes; nothing is unpacked."""

import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import PurePosixPath

from lesion.core.text import format_count, join_names
from lesion.intake.uploads import match_class

_ZIP = "ZIP archive"
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (  # position, signature, what it is
    (0, b"PK\x03\x04", _ZIP),
    (0, b"PK\x05\x06", _ZIP),
    (0, b"PK\x07\x08", _ZIP),  # in several parts
    (0, b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (0, b"Rar!", "RAR archive"),
    (0, b"BZh", "bzip2 file (.tar.bz2 perhaps)"),
    (0, b"\xfd7zXZ\x00", "xz file (.tar.xz perhaps)"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard file (.tar.zst perhaps)"),
    (257, b"ustar", "tar archive"),
)
_GZIP = b"\x1f\x8b"  # also NIfTI volumes, which the decoder names
_GZIP_FILE = "gzip file (.tar.gz perhaps)"
_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar", ".zst"})
# Encodings of names in archives that do not tell theirs, the most probable first.
_ENCODINGS = ("utf-8", "cp437", "cp850", "cp1252", "cp932", "gb18030")
_UTF8_FLAG = 0x800
START_BYTES = 512  # of a file: they tell what kind of archive it is
_SHOWN = 5


def is_archive(start: bytes, name: str) -> bool:
    """Return whether a file is an archive, of whatever kind, by its first ``START_BYTES`` bytes or its name.

    NIfTI volumes, which are compressed in the same way, are images of a kind that the decoder names.
    """
    return _kind_by_content(start) is not None or has_archive_name(name)


def has_archive_name(name: str) -> bool:
    """Return whether a file is called like an archive; ``.nii.gz`` is an image."""
    lower = name.lower()
    return PurePosixPath(lower).suffix in _SUFFIXES and not lower.endswith(".nii.gz")


def other_archive(start: bytes) -> str | None:
    """Return what a file is by its first ``START_BYTES`` bytes, such as a 7z archive.

    It is None for a ZIP archive and for unknown files.
    """
    kind = _GZIP_FILE if start.startswith(_GZIP) else _kind_by_content(start)
    return None if kind == _ZIP else kind


def begins_as_archive(data: bytes) -> bool:
    """Return whether a file's content is an archive or compressed, whatever its name is."""
    return data.startswith(_GZIP) or _kind_by_content(data[:START_BYTES]) is not None


def entry_name(entry: zipfile.ZipInfo, classes: Collection[str]) -> str:
    """Return an entry's path with ``/`` between its folders, whatever the program that wrote it does.

    Names that do not tell their encoding are read in the first one of the usual encodings in which a folder is a class,
    or else as UTF-8, as macOS writes them, if they are valid.
    """
    names = [entry.filename]
    if not entry.flag_bits & _UTF8_FLAG and not entry.filename.isascii():
        raw = entry.filename.encode("cp437")
        names = [decoded for encoding in _ENCODINGS if (decoded := _decode(raw, encoding)) is not None]
    paths = [name.replace("\\", "/") for name in names]  # as some programs for Windows separate folders
    return next((path for path in paths if classes_of(path, classes)), paths[0])


def classes_of(path: str, classes: Collection[str]) -> list[str]:
    """Return the classes that folders of a path are named after."""
    folders = (match_class(folder, classes) for folder in PurePosixPath(path).parts[:-1])
    return list(dict.fromkeys(folder for folder in folders if folder in classes))


def expected_layout(classes: Iterable[str] = ()) -> str:
    """Draw the folders of an archive that is accepted, as a small tree."""
    names = [*islice(classes, 2)] or ["CLASS", "OTHER_CLASS"]
    tree = ["archive.zip"]
    for number, name in enumerate(names):
        last = number == len(names) - 1
        tree += [
            f"{'└' if last else '├'}── {name}",
            f"{' ' if last else '│'}   ├── 1.png",
            f"{' ' if last else '│'}   └── 2.png",
        ]
    return "\n".join(tree)


def found_folders(paths: Sequence[str]) -> str:
    """Describe the folders that an archive's files are in, the largest first: for a message."""
    counts = Counter(str(PurePosixPath(path).parent) for path in paths)
    listed = [
        f"{'no folder' if name == '.' else repr(name[-80:])} ({format_count(count, 'file')})"
        for name, count in counts.most_common()
    ]
    return join_names(listed, _SHOWN)


def _kind_by_content(start: bytes) -> str | None:
    return next((kind for place, signature, kind in _SIGNATURES if start.startswith(signature, place)), None)


def _decode(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return None
