"""A backup: a folder with one consistent copy of the database and every file of the store that it knows.

The database comes first. Files of the store never change and are there before a row names them, so whatever the copy
of the database names can be copied after it; only an image that was deleted meanwhile is missing, and its tombstone
says so.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from lesion.backup import backup_manifest
from lesion.backup.backup_manifest import DATABASE, FILES, NAME, BackupError, facts_of, some
from lesion.backup.dumps import POSTGRESQL, SQLITE, check_same, dumped, first_entry, kind_of, revision_of, sqlite_files
from lesion.backup.postgres_tools import server_version
from lesion.catalogue.snapshot_store import THREADS
from lesion.core.version import __version__
from lesion.database.object_store import ObjectStore, StoreError, bundle_key, image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, ApiKey, Deployment, Image, Job, ModelVersion, Snapshot
from lesion.imaging.decode import bytes_sha256
from lesion.model.bundle import FACTS_FILE, version_of

Trouble = Literal["absent", "missing", "damaged"]  # absent: it need not be there


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of the store, and how its content is known to be right.

    Attributes:
        key: Its name in the store.
        sha256: What the hash of its content begins with; nothing for what is not named by it.
        version: The version that its facts hash to, for a bundle's ``bundle.json``.
        optional: Whether there may be none.
    """

    key: str
    sha256: str = ""
    version: str = ""
    optional: bool = False

    def fits(self, data: bytes) -> bool:
        """Whether it has this content."""
        if not self.version:
            return bytes_sha256(data).startswith(self.sha256)
        try:
            return version_of(json.loads(data)) == self.version
        except (ValueError, AttributeError):
            return False


def create(storage: Storage, folder: Path, *, replace: bool = False) -> dict[str, Any]:
    """Make a backup, or bring one that is there up to date; files that it has already are not copied again.

    Until the new manifest is written the one before holds, and nothing that it lists is changed or removed: a backup
    that is interrupted or fails leaves the last whole one.

    Args:
        storage: The loop's database and files; servers and workers may go on.
        folder: Where the backup lies; made if need be, and closed to everybody but its owner.
        replace: Make it even though the backup that is there is of another installation, or unreadable.

    Returns:
        The manifest.

    Raises:
        BackupError: A file that the database knows is missing or damaged in the store (``store_incomplete``), the
            folder has another installation's backup (``backup_other``), cannot be closed to others or is the store's
            (``backup_folder``), the disk is full, or another backup is being made there (``backup_running``).
        ConfigError: See :func:`lesion.backup.dumps.dumped`; or the database is of a newer Lesion (``database_newer``).
        StoreError: The store does not answer.
    """
    _check_place(storage, folder)
    with backup_manifest.alone(folder):
        backup_manifest.close_to_others(folder)
        before = _before(folder, replace)
        with _new_dumps_only_if_whole(folder / DATABASE):
            manifest = _copied(storage, folder, before)
        manifest = backup_manifest.write(folder, manifest)
        backup_manifest.prune(folder, manifest)
        return manifest


def _copied(storage: Storage, folder: Path, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Copy the database, then what it names; returns what the manifest says of it. ``before`` must be its own."""
    taken = datetime.now(UTC)
    with dumped(storage, folder / DATABASE) as (dumps, connection):
        revision = revision_of(connection)
        if before is not None:
            check_same(connection, folder, before)
        wanted, facts = list(known_files(connection)), _facts(connection)
        server = server_version(connection) if kind_of(storage) == POSTGRESQL else None
    known = {} if before is None else before["files"]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda one: _copy(storage.store, folder, one, known.get(f"{FILES}/{one.key}")), wanted)
        copied = dict(zip(wanted, found, strict=True))
    deleted = sorted(_deleted(storage) & {one.sha256 for one in wanted})
    files = _complete(copied, {image_key(sha256) for sha256 in deleted})
    parts = {part: path.relative_to(folder).as_posix() for part, path in dumps.items()}
    return {
        "lesion": __version__,
        "revision": revision,
        "taken_at": taken.isoformat(timespec="seconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": {"kind": kind_of(storage), "server": server, "files": parts},
        "deleted": deleted,  # after the database was copied, where they are not deleted yet
        "files": files | {name: facts_of(folder / name) for name in parts.values()},
        **facts,
    }


def known_files(connection: Connection) -> Iterator[Wanted]:
    """Yield every file of the store that a database names. Checkpoints of trainings that run are not among them."""
    for sha256 in connection.scalars(select(Image.sha256).where(Image.status != DELETED).order_by(Image.id)):
        yield Wanted(image_key(sha256), sha256)
    for key in connection.scalars(select(Snapshot.manifest_key).order_by(Snapshot.id)):
        yield Wanted(key, Path(key).stem)
    for version, facts in connection.execute(select(ModelVersion.version, ModelVersion.facts)):
        for name, expected in facts["files"].items():
            yield Wanted(f"{bundle_key(version)}/{name}", expected["sha256"])
        yield Wanted(f"{bundle_key(version)}/{FACTS_FILE}", version=version)
    for job_id in connection.scalars(select(Job.id).order_by(Job.id)):
        yield Wanted(f"reports/{job_id}.html", optional=True)


def _facts(connection: Connection) -> dict[str, Any]:
    tables = {"images": Image, "versions": ModelVersion, "snapshots": Snapshot, "jobs": Job, "keys": ApiKey}
    counts = {name: connection.scalar(select(func.count()).select_from(table)) for name, table in tables.items()}
    champion = connection.scalar(select(Deployment.version).order_by(Deployment.id.desc()).limit(1))
    return {"counts": counts, "champion": champion, "began": first_entry(connection)}


def _check_place(storage: Storage, folder: Path) -> None:
    """Refuse a folder that shares a place with the storage: what the backup does not list is removed from it."""
    theirs = [path for path in (storage.store.folder,) if path is not None]
    theirs += sqlite_files(storage).values() if kind_of(storage) == SQLITE else []
    for path in theirs:
        for ours in (folder / FILES, folder / DATABASE):
            one, other = path.resolve(), ours.resolve()
            if one.is_relative_to(other) or other.is_relative_to(one):
                raise BackupError(
                    f"'{ours}' of the backup and '{path}' of the storage are in one place. Name another folder.",
                    code="backup_folder",
                )


def _before(folder: Path, replace: bool) -> dict[str, Any] | None:
    """Return the manifest of the backup that is in a folder and must be this installation's, if there is one."""
    if replace or not (folder / NAME).exists():
        return None
    try:
        return backup_manifest.read(folder)
    except BackupError as error:
        raise BackupError(
            f"There is a backup already: {error.message} Name another folder for this one; --replace takes this one.",
            code=error.code,
        ) from error


def _copy(
    source: ObjectStore, folder: Path, wanted: Wanted, before: Mapping[str, Any] | None
) -> dict[str, Any] | Trouble:
    """Copy a file of the store unless the backup has it.

    What is in its place stays until the new content is here: it may be what the backup before consists of.

    Args:
        source: The store.
        folder: The backup.
        wanted: The file.
        before: What the manifest before says of it. Files of a store never change.

    Returns:
        What the manifest says of it, or what is wrong with it.
    """
    path = folder / FILES / wanted.key
    if path.is_file():
        facts = facts_of(path)
        if wanted.version:
            whole = wanted.fits(path.read_bytes())
        else:
            whole = facts["sha256"].startswith(wanted.sha256) if wanted.sha256 else facts == before
        if whole:
            return facts
    try:
        data = source.get(wanted.key)
    except StoreError as error:
        if error.code != "file_gone":
            raise
        return "absent" if wanted.optional else "missing"
    if not wanted.fits(data):
        return "damaged"
    try:
        backup_manifest.write_private(path, data)
        facts = facts_of(path)
    except OSError as error:
        raise StoreError(f"'{wanted.key}' could not be copied to '{folder}': {error}. Try again.") from error
    if facts["sha256"] != bytes_sha256(data):
        raise BackupError(f"'{path}' reads otherwise than it was written. Check the disk.", code="backup_disk")
    return facts


def _complete(copied: Mapping[Wanted, dict[str, Any] | Trouble], deleted: set[str]) -> dict[str, dict[str, Any]]:
    """Return the files of the store that a backup holds, once nothing is wrong with it."""
    for trouble in ("missing", "damaged"):
        names = [one.key for one, found in copied.items() if found == trouble and one.key not in deleted]
        if names:
            raise BackupError(
                f"{len(names)} files that the database knows are {trouble} in the store: {some(names)}. Restore them "
                "from an earlier backup, then run create again: what was copied stays. There is no new backup yet.",
                code="store_incomplete",
            )
    there = {one.key: facts for one, facts in copied.items() if not isinstance(facts, str) and one.key not in deleted}
    return {f"{FILES}/{key}": facts for key, facts in there.items()}


def _deleted(storage: Storage) -> set[str]:
    with storage.session() as session:
        return set(session.scalars(select(Image.sha256).where(Image.status == DELETED)))


@contextmanager
def _new_dumps_only_if_whole(folder: Path) -> Iterator[None]:
    """Remove the dumps of a backup that fails: one a night would fill the disk while the store is away."""
    before = set(folder.glob("*"))
    try:
        yield
    except BaseException:
        for path in set(folder.glob("*")) - before:
            path.unlink()
        raise
