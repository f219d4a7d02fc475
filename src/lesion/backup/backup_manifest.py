"""A backup's manifest: what is in the folder, with hashes; written last, so that a backup without one is not whole.

Folders and files of a backup are made for their owner alone, whatever the umask.
"""

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lesion.catalogue.snapshot_store import THREADS
from lesion.core.errors import LesionError
from lesion.model.bundle import canonical_json

FORMAT = 1
NAME = "manifest.json"
FILES, DATABASE = "files", "database"  # folders of a backup: the store's objects under their names, and the dumps
_SHOWN = 5  # names in a message
_FOLDER = "backup_folder"
_OWN = "A backup holds images and hashes of keys: name a folder that belongs to the user who makes it, or a new one."
_SAFE = re.compile(rf"(?:{FILES}|{DATABASE})(?:/(?!\.{{1,2}}(?:/|$))[\w.\- ]+)+")


class BackupError(LesionError):
    """A backup that cannot be made, is not whole, or cannot be restored here."""

    default_code = "backup_failed"
    default_status = 409


def some(names: list[str]) -> str:
    """Return the first names for a message, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def write(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write a manifest in place of the one before, whole or not at all; returns it.

    Raises:
        BackupError: What was written reads otherwise (``backup_disk``); the one before is still there.
    """
    manifest = {"format": FORMAT} | facts
    manifest["sha256"] = _seal(manifest)
    temporary = folder / f".{NAME}.part"
    temporary.unlink(missing_ok=True)  # of a backup that was interrupted
    with private_file(temporary).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    if json.loads(temporary.read_text("utf-8")) != manifest:
        raise BackupError(f"'{temporary}' reads otherwise than it was written. Check the disk.", code="backup_disk")
    temporary.replace(folder / NAME)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what the one before needed is removed next
    finally:
        os.close(descriptor)
    return manifest


def read(folder: Path) -> dict[str, Any]:
    """Return a backup's manifest.

    Raises:
        BackupError: There is none (``backup_incomplete``), it was altered (``backup_altered``), or a newer version of
            Lesion wrote it (``backup_newer``).
    """
    path = folder / NAME
    if not path.is_file():
        raise BackupError(
            f"'{folder}' has no {NAME}: it is no backup, or one that was interrupted. Run create again, it goes on.",
            code="backup_incomplete",
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        newer = manifest["format"] > FORMAT
        whole = newer or manifest["sha256"] == _seal(manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        newer = whole = False
    if newer:
        raise BackupError(f"'{path}' is of a newer version of Lesion. Update Lesion.", code="backup_newer")
    if not whole or not all(_SAFE.fullmatch(name) for name in manifest["files"]):
        raise BackupError(f"'{path}' was altered or is damaged. Use another backup.", code="backup_altered")
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Read every file of a backup and compare it with the manifest, which is returned.

    Raises:
        BackupError: As :func:`read`; a file is missing or has other bytes (``backup_altered``), which are named.
    """
    manifest = read(folder)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: facts_of(folder / name) if (folder / name).is_file() else None, manifest["files"])
        wrong = [name for name, facts in zip(manifest["files"], found, strict=True) if facts != manifest["files"][name]]
    if wrong:
        raise BackupError(
            f"{len(wrong)} of the {len(manifest['files'])} files of '{folder}' are missing or have other bytes than "
            f"when the backup was made: {some(wrong)}. Use another backup; nothing was restored.",
            code="backup_altered",
        )
    return manifest


def facts_of(path: Path) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a backup's folder, if need be, and keep other backups out of it meanwhile.

    Raises:
        BackupError: One is being made there (``backup_running``), or what is in it is none (``backup_folder``).
    """
    lock = folder / ".lock"  # stays: it marks the folder as a backup's while there is no manifest yet
    strange = [name for name in (FILES, DATABASE) if (folder / name).exists()]
    if strange and not lock.exists() and not (folder / NAME).exists():
        raise BackupError(f"{some(strange)} in '{folder}' are of no backup. Name another folder.", code=_FOLDER)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"Another backup is being made in '{folder}'.", code="backup_running") from error
        yield


def private_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, for their owner alone."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def private_file(path: Path) -> Path:
    """Make an empty file for its owner alone, that others then write into."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a file for its owner alone; what has its name stays until it is whole."""
    private_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def close_to_others(folder: Path) -> None:
    """Take a backup's folder, and what a backup has in it, from everybody but its owner.

    Raises:
        BackupError: It belongs to another user, or its file system has no such rights (``backup_folder``).
    """
    try:
        ours = [folder, *(folder / name for name in (NAME, FILES, DATABASE))]
        for path in (*ours, *(folder / FILES).rglob("*"), *(folder / DATABASE).rglob("*")):
            if path.exists() and not path.is_symlink() and path.stat().st_mode & 0o077:
                path.chmod(0o700 if path.is_dir() else 0o600)
        shared = bool(folder.stat().st_mode & 0o077)
    except OSError as error:
        raise BackupError(
            f"'{error.filename}' cannot be closed to others: {error.strerror}. {_OWN}", code=_FOLDER
        ) from error
    if shared:
        raise BackupError(f"The file system of '{folder}' does not keep others out of it. {_OWN}", code=_FOLDER)


def prune(folder: Path, manifest: dict[str, Any]) -> None:
    """Remove what a backup holds beyond its manifest: earlier dumps, and images that were deleted since."""
    for path in (folder / FILES, folder / DATABASE):
        for file in path.rglob("*"):
            if file.is_file() and file.relative_to(folder).as_posix() not in manifest["files"]:
                file.unlink()


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({key: manifest[key] for key in manifest if key != "sha256"})).hexdigest()
