"""A backup: a folder with one consistent copy of the database and every file of the store that it knows.

The database comes first. Files of the store never change and are there before a row names them, so whatever the copy
of the database names can be copied after it; only an image that was deleted meanwhile is missing, and its tombstone
says so.
"""

import fcntl
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

from lesion import __version__
from lesion.images import bytes_sha256
from lesion.loop import backup_manifest, migrations
from lesion.loop.backup_manifest import DATABASE, FILES, BackupError, some
from lesion.loop.dumps import POSTGRESQL, dumped, kind_of
from lesion.loop.postgres_tools import server_version
from lesion.loop.snapshot_store import THREADS
from lesion.loop.storage import Storage
from lesion.loop.store import ObjectStore, StoreError, bundle_key, image_key
from lesion.loop.tables import DELETED, ApiKey, Deployment, Image, Job, ModelVersion, Snapshot
from lesion.model.bundle import FACTS_FILE, version_of


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


def create(storage: Storage, folder: Path) -> dict[str, Any]:
    """Make a backup, or bring one that is there up to date; files that it has already are not copied again.

    Until the new manifest is written the one before holds: an interrupted backup leaves the last whole one.

    Args:
        storage: The loop's database and files; servers and workers may go on.
        folder: Where the backup lies; made if need be, readable by its owner alone.

    Returns:
        The manifest.

    Raises:
        BackupError: A file that the database knows is missing or damaged in the store (``store_incomplete``), the disk
            is full, or another backup is being made there (``backup_running``).
        ConfigError: See :func:`lesion.loop.dumps.dumped`; or the database is of a newer Lesion (``database_newer``).
        StoreError: The store does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder):
        taken = datetime.now(UTC)
        with dumped(storage, folder / DATABASE) as (dumps, connection):
            revision, wanted, facts = _revision(connection), list(known_files(connection)), _facts(connection)
            server = server_version(connection) if kind_of(storage) == POSTGRESQL else None
        target = ObjectStore(str(folder / FILES), {})
        with ThreadPoolExecutor(THREADS) as pool:
            copied = dict(zip(wanted, pool.map(lambda one: _copy(storage.store, target, one), wanted), strict=True))
        deleted = sorted(_deleted(storage) & {one.sha256 for one in wanted})
        present = _complete(copied, {image_key(sha256) for sha256 in deleted})
        names = [f"{FILES}/{key}" for key in present] + [path.relative_to(folder).as_posix() for path in dumps.values()]
        parts = {part: path.relative_to(folder).as_posix() for part, path in dumps.items()}
        manifest = backup_manifest.write(
            folder,
            {
                "lesion": __version__,
                "revision": revision,
                "taken_at": taken.isoformat(timespec="seconds"),
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "database": {"kind": kind_of(storage), "server": server, "files": parts},
                "deleted": deleted,  # after the database was copied, where they are not deleted yet
                "files": {name: backup_manifest.facts_of(folder / name) for name in names},
                **facts,
            },
        )
        backup_manifest.prune(folder, manifest)
        return manifest


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


def known_revisions() -> set[str]:
    """Return the revisions of the database that this version of Lesion can bring up to date."""
    folder = str(Path(migrations.__file__).parent)
    return {revision.revision for revision in ScriptDirectory(folder).walk_revisions()}


def _revision(connection: Connection) -> str:
    heads = MigrationContext.configure(connection).get_current_heads()
    if len(heads) != 1 or heads[0] not in known_revisions():
        raise BackupError(
            f"The database has revision {', '.join(heads) or 'none'}, which this version of Lesion does not know. "
            "Use the version of Lesion that made it, and check storage.database.",
            code="database_newer" if heads else "database_empty",
        )
    return heads[0]


def _facts(connection: Connection) -> dict[str, Any]:
    tables = {"images": Image, "versions": ModelVersion, "snapshots": Snapshot, "jobs": Job, "keys": ApiKey}
    counts = {name: connection.scalar(select(func.count()).select_from(table)) for name, table in tables.items()}
    champion = connection.scalar(select(Deployment.version).order_by(Deployment.id.desc()).limit(1))
    return {"counts": counts, "champion": champion}


def _copy(source: ObjectStore, target: ObjectStore, wanted: Wanted) -> str:
    """Copy a file unless it is there already; returns what is wrong with it: nothing, ``missing`` or ``damaged``."""
    if target.has(wanted.key):
        if (wanted.sha256 or wanted.version) and wanted.fits(target.get(wanted.key)):
            return ""
        target.delete(wanted.key)
    try:
        data = source.get(wanted.key)
    except StoreError as error:
        if error.code != "file_gone":
            raise
        return "absent" if wanted.optional else "missing"
    if not wanted.fits(data):
        return "damaged"
    target.put(wanted.key, data)
    return ""


def _complete(copied: dict[Wanted, str], deleted: set[str]) -> list[str]:
    """Return the names of what a backup holds, once nothing is wrong with it."""
    for trouble in ("missing", "damaged"):
        names = [one.key for one, found in copied.items() if found == trouble and one.key not in deleted]
        if names:
            raise BackupError(
                f"{len(names)} files that the database knows are {trouble} in the store: {some(names)}. Restore them "
                "from an earlier backup, then run create again: what was copied stays. There is no new backup yet.",
                code="store_incomplete",
            )
    return [one.key for one, found in copied.items() if not found and one.key not in deleted]


def _deleted(storage: Storage) -> set[str]:
    with storage.session() as session:
        return set(session.scalars(select(Image.sha256).where(Image.status == DELETED)))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"Another backup is being made in '{folder}'.", code="backup_running") from error
        yield
