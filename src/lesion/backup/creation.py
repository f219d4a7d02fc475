"""Create a backup: a folder with one consistent copy of the database and every file of the store that it names.

The database is copied first. Files of the store never change and exist before a row names them, so everything that the
copy names can be copied after it; only an image that was deleted meanwhile is missing, as its tombstone tells.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, func, select

from lesion.backup import backup_manifest, dumps
from lesion.backup.backup_manifest import DATABASE, FILES, MANIFEST, BackupError, BackupManifest, DiskFaultError
from lesion.backup.postgres_tools import server_version
from lesion.catalogue.snapshot_store import THREADS
from lesion.core.files import FileFacts, bytes_sha256, file_facts, write_atomically
from lesion.core.text import join_names
from lesion.core.version import __version__
from lesion.database.object_store import ObjectNotFoundError, ObjectStore, StoreError, bundle_key, image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, ApiKey, Deployment, Image, Job, ModelVersion, Snapshot
from lesion.model.bundle_facts import FACTS_FILE, version_of

Problem = Literal["absent", "missing", "damaged"]  # absent: missing, but optional
_COUNTED = (("images", Image), ("versions", ModelVersion), ("snapshots", Snapshot), ("jobs", Job), ("keys", ApiKey))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store, and how its content is verified."""

    key: str
    sha256: str = ""  # the beginning of its content's hash; empty if its key does not depend on the content
    version: str = ""  # for a bundle's ``bundle.json``: the version that its facts hash to
    optional: bool = False

    def matches(self, data: bytes) -> bool:
        """Return whether this is its content."""
        if not self.version:
            return bytes_sha256(data).startswith(self.sha256)
        try:
            return version_of(json.loads(data)) == self.version
        except (ValueError, AttributeError):
            return False


def create_backup(storage: Storage, folder: Path, *, replace: bool = False) -> BackupManifest:
    """Create a backup, or update an existing one; files that it has already are not copied again.

    The old manifest stays valid until the new one is written, and nothing that it lists is changed or removed before:
    after an interruption or a failure the last complete backup is still there.
    Servers and workers may keep running. The folder is created if necessary and restricted to its owner. With
    ``replace`` the existing backup may belong to another installation, or be unreadable.

    Raises:
        BackupError: A file that the database names is missing or damaged in the store (``store_incomplete``), the
            backup belongs to another installation (``backup_other``), or another backup is being made there
            (``backup_running``).
        BackupFolderError: The folder cannot be restricted to its owner, or belongs to the storage.
        ConfigError: See :func:`lesion.backup.dumps.dump_database`.
        StoreError: The store does not answer, or the disk is full.
    """
    _check_folder(storage, folder)
    with backup_manifest.lock_folder(folder):
        backup_manifest.restrict_to_owner(folder)
        previous = _previous_manifest(folder, replace)
        with _remove_new_dumps_on_failure(folder / DATABASE):
            manifest = _copy_storage(storage, folder, previous)
        manifest = backup_manifest.write_manifest(folder, manifest)
        backup_manifest.remove_unlisted(folder, manifest)
        return manifest


def _copy_storage(storage: Storage, folder: Path, previous: BackupManifest | None) -> BackupManifest:
    """Copy the database and then the files that it names; return the manifest without its hash."""
    taken_at, kind = datetime.now(UTC), dumps.database_kind(storage)
    with dumps.dump_database(storage, folder / DATABASE) as (parts, connection):
        revision = dumps.database_revision(connection)
        if previous is not None:
            dumps.check_same_installation(connection, folder, previous)
        stored, began = list(stored_files(connection)), dumps.first_entry(connection)
        counts = {name: connection.scalar(select(func.count()).select_from(table)) or 0 for name, table in _COUNTED}
        champion = connection.scalar(select(Deployment.version).order_by(Deployment.id.desc()).limit(1))
        server = server_version(connection) if kind == dumps.POSTGRESQL else None
    previous_files = {} if previous is None else previous["files"]
    with ThreadPoolExecutor(THREADS) as pool:
        copies = pool.map(
            lambda file: _copy(storage.store, folder, file, previous_files.get(f"{FILES}/{file.key}")), stored
        )
        results = dict(zip(stored, copies, strict=True))
    with storage.session() as session:
        deleted_now = session.scalars(select(Image.sha256).where(Image.status == DELETED)).all()
    deleted = sorted({file.sha256 for file in stored}.intersection(deleted_now))
    files = _check_complete(results, {image_key(sha256) for sha256 in deleted})
    names = {part: path.relative_to(folder).as_posix() for part, path in parts.items()}
    return {
        "format": backup_manifest.FORMAT,
        "sha256": "",
        "lesion": __version__,
        "revision": revision,
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": {"kind": kind, "server": server, "files": names},
        "deleted": deleted,  # the copy of the database still has these
        "files": files | {name: file_facts(folder / name) for name in names.values()},
        "counts": counts,
        "champion": champion,
        "began": began,
    }


def stored_files(connection: Connection) -> Iterator[StoredFile]:
    """Yield every file of the store that a database names, except checkpoints of running trainings."""
    for sha256 in connection.scalars(select(Image.sha256).where(Image.status != DELETED).order_by(Image.id)):
        yield StoredFile(image_key(sha256), sha256)
    for key in connection.scalars(select(Snapshot.manifest_key).order_by(Snapshot.id)):
        yield StoredFile(key, Path(key).stem)
    for version, facts in connection.execute(select(ModelVersion.version, ModelVersion.facts)):
        for name, expected in facts["files"].items():
            yield StoredFile(f"{bundle_key(version)}/{name}", expected["sha256"])
        yield StoredFile(f"{bundle_key(version)}/{FACTS_FILE}", version=version)
    for job_id in connection.scalars(select(Job.id).order_by(Job.id)):
        yield StoredFile(f"reports/{job_id}.html", optional=True)


def _check_folder(storage: Storage, folder: Path) -> None:
    """Refuse a folder inside or above the storage's files: a backup removes what it does not list."""
    storage_paths = [storage.store.folder] if storage.store.folder is not None else []
    storage_paths += dumps.sqlite_files(storage).values() if dumps.database_kind(storage) == dumps.SQLITE else []
    for path in storage_paths:
        for part in (folder / FILES, folder / DATABASE):
            ours, theirs = part.resolve(), path.resolve()
            if theirs.is_relative_to(ours) or ours.is_relative_to(theirs):
                raise backup_manifest.BackupFolderError(
                    f"'{part}' of the backup and '{path}' of the storage overlap. Name another folder."
                )


def _previous_manifest(folder: Path, replace: bool) -> BackupManifest | None:
    """Return the manifest of the folder's backup, if there is one that must belong to the same installation."""
    if replace or not (folder / MANIFEST).exists():
        return None
    try:
        return backup_manifest.read_manifest(folder)
    except BackupError as error:
        raise type(error)(
            f"The folder has a backup already: {error.message} Name another folder for the new backup, or replace the "
            "old one with --replace.",
            code=error.code,
        ) from error


def _copy(source: ObjectStore, folder: Path, file: StoredFile, previous: FileFacts | None) -> FileFacts | Problem:
    """Copy a file of the store unless the backup has it, and return its facts or what is wrong with it.

    ``previous`` are its facts in the previous manifest; files of a store never change. A file in its place is replaced
    only by verified content: the previous backup may need it.
    """
    path = folder / FILES / file.key
    if path.is_file():
        facts = file_facts(path)
        if file.version:
            intact = file.matches(path.read_bytes())
        else:
            intact = facts["sha256"].startswith(file.sha256) if file.sha256 else facts == previous
        if intact:
            return facts
    try:
        data = source.get(file.key)
    except ObjectNotFoundError:
        return "absent" if file.optional else "missing"
    if not file.matches(data):
        return "damaged"
    try:
        backup_manifest.make_private_folder(path.parent)
        write_atomically(path, data, mode=0o600)
        facts = file_facts(path)
    except OSError as error:
        raise StoreError(f"'{file.key}' could not be copied to '{folder}': {error}. Try again.") from error
    if facts["sha256"] != bytes_sha256(data):
        raise DiskFaultError(f"'{path}' has other bytes than those that were written. Check the disk.")
    return facts


def _check_complete(results: Mapping[StoredFile, FileFacts | Problem], deleted: set[str]) -> dict[str, FileFacts]:
    """Return the backup's files of the store, by name; a file that is missing or damaged is a BackupError."""
    for problem in ("missing", "damaged"):
        keys = [file.key for file, result in results.items() if result == problem and file.key not in deleted]
        if keys:
            names = join_names(keys, quote="'")
            raise BackupError(
                f"{len(keys)} files that the database names are {problem} in the store: {names}. Restore them from an "
                "earlier backup, then run create again: copied files are kept. There is no new backup yet.",
                code="store_incomplete",
            )
    return {
        f"{FILES}/{file.key}": result
        for file, result in results.items()
        if not isinstance(result, str) and file.key not in deleted
    }


@contextmanager
def _remove_new_dumps_on_failure(folder: Path) -> Iterator[None]:
    """Remove the dumps of a failed backup: one per night would fill the disk while the store does not answer."""
    before = set(folder.glob("*"))
    try:
        yield
    except BaseException:
        for path in set(folder.glob("*")) - before:
            path.unlink()
        raise
