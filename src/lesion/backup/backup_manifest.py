"""The manifest of a backup lists its files with their hashes. It is written last: without it a backup is not complete.

Folders and files of a backup are readable for their owner only, whatever the umask.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

from lesion.catalogue.snapshot_store import THREADS
from lesion.core.errors import ConflictError
from lesion.core.files import FileFacts, atomic_path, file_facts
from lesion.core.text import join_names
from lesion.model.bundle_facts import canonical_json

FORMAT = 1
MANIFEST = "manifest.json"
FILES, DATABASE = "files", "database"  # folders of a backup: the store's files under their keys, and the dumps
_ADVICE = "A backup holds images and hashes of keys: name a folder that belongs to the user who makes it, or a new one."
_SAFE_NAME = re.compile(rf"(?:{FILES}|{DATABASE})(?:/(?!\.{{1,2}}(?:/|$))[\w.\- ]+)+")


class DatabaseFacts(TypedDict):
    """The copy of the database: its files by part, and the major version of a PostgreSQL server."""

    kind: Literal["sqlite", "postgresql"]
    server: int | None
    files: dict[str, str]


class BackupManifest(TypedDict):
    """The content of a backup.

    ``revision`` is that of the database. ``files`` has the names below the backup's folder. ``deleted`` lists hashes of
    images that were deleted after the database was copied. ``began`` is the first entry of the audit log. ``sha256`` is
    the hash of everything else in the manifest.
    """

    format: int
    sha256: str
    lesion: str
    revision: str
    taken_at: str
    finished_at: str
    database: DatabaseFacts
    deleted: list[str]
    files: dict[str, FileFacts]
    counts: dict[str, int]
    champion: str | None
    began: dict[str, Any] | None


class BackupError(ConflictError):
    """A backup that cannot be made, is not complete, or cannot be restored here."""

    default_code = "backup_failed"


class BackupFolderError(BackupError):
    """A folder that a backup must not be made in."""

    default_code = "backup_folder"


class DiskFaultError(BackupError):
    """A file has other bytes than those that were just written to it."""

    default_code = "backup_disk"


def write_manifest(folder: Path, manifest: BackupManifest) -> BackupManifest:
    """Seal a manifest with its hash, write and return it; or raise a DiskFaultError, and the old one is still there."""
    manifest = {**manifest, "sha256": _seal(manifest)}
    with atomic_path(folder / MANIFEST, mode=0o600) as unfinished:
        unfinished.write_text(json.dumps(manifest, indent=1, sort_keys=True), "utf-8")
        if json.loads(unfinished.read_text("utf-8")) != manifest:
            raise DiskFaultError(f"'{unfinished}' has other bytes than those that were written. Check the disk.")
    return manifest


def read_manifest(folder: Path) -> BackupManifest:
    """Return a backup's manifest; raise a BackupError if there is none.

    The codes are ``backup_incomplete`` (there is none), ``backup_newer`` (a newer version of Lesion wrote it) and
    ``backup_altered``.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BackupError(
            f"'{folder}' has no {MANIFEST}: it is not a backup, or the backup was interrupted. Run create again to "
            "continue it.",
            code="backup_incomplete",
        )
    try:
        manifest: BackupManifest = json.loads(path.read_text("utf-8"))
        newer = manifest["format"] > FORMAT
        intact = newer or manifest["sha256"] == _seal(manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        newer = intact = False
    if newer:
        raise BackupError(f"A newer version of Lesion wrote '{path}'. Update Lesion.", code="backup_newer")
    if not intact or not all(_SAFE_NAME.fullmatch(name) for name in manifest["files"]):
        raise BackupError(f"'{path}' was altered or is damaged. Use another backup.", code="backup_altered")
    return manifest


def verify_backup(folder: Path) -> BackupManifest:
    """Return a backup's manifest after a comparison with every file; a BackupError names the files that differ."""
    manifest = read_manifest(folder)
    files = manifest["files"]
    with ThreadPoolExecutor(THREADS) as pool:
        present = pool.map(lambda name: file_facts(folder / name) if (folder / name).is_file() else None, files)
        altered = [name for name, facts in zip(files, present, strict=True) if facts != files[name]]
    if altered:
        names = join_names(altered, quote="'")
        raise BackupError(
            f"{len(altered)} of the {len(files)} files of '{folder}' are missing or have other bytes than when the "
            f"backup was made: {names}. Use another backup; nothing was restored.",
            code="backup_altered",
        )
    return manifest


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create a backup's folder if necessary, and keep other backups out of it.

    Raises:
        BackupError: Another backup is being made in the folder (``backup_running``).
        BackupFolderError: The folder has other content than a backup.
    """
    lock = folder / ".lock"  # is never removed: it marks the folder of a backup that has no manifest yet
    foreign = [name for name in (FILES, DATABASE) if (folder / name).exists()]
    if foreign and not lock.exists() and not (folder / MANIFEST).exists():
        names = join_names(foreign, quote="'")
        raise BackupFolderError(f"{names} in '{folder}' do not belong to a backup. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"Another backup is being made in '{folder}'.", code="backup_running") from error
        yield


def make_private_folder(path: Path) -> Path:
    """Create a folder and its missing parents, readable for the owner only."""
    if not path.is_dir():
        make_private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def make_private_file(path: Path) -> Path:
    """Create an empty file, readable for the owner only, for a program that then writes to it."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def restrict_to_owner(folder: Path) -> None:
    """Make a backup's folder and its content readable for the owner only; raise a BackupFolderError if that fails."""
    try:
        paths = [folder, *(folder / name for name in (MANIFEST, FILES, DATABASE))]
        for path in (*paths, *(folder / FILES).rglob("*"), *(folder / DATABASE).rglob("*")):
            if path.exists() and not path.is_symlink() and path.stat().st_mode & 0o077:
                path.chmod(0o700 if path.is_dir() else 0o600)
        readable = bool(folder.stat().st_mode & 0o077)
    except OSError as error:
        raise BackupFolderError(f"'{error.filename}' cannot be restricted: {error.strerror}. {_ADVICE}") from error
    if readable:
        raise BackupFolderError(f"The file system of '{folder}' does not keep other users out. {_ADVICE}")


def remove_unlisted(folder: Path, manifest: BackupManifest) -> None:
    """Remove what is not in a backup's manifest: older dumps, images deleted since, and files of interrupted writes."""
    for path in (*(folder / FILES).rglob("*"), *(folder / DATABASE).rglob("*"), *folder.glob(".*part*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in manifest["files"]:
            path.unlink()


def _seal(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json({key: manifest[key] for key in manifest if key != "sha256"})).hexdigest()
