"""Bring a backup back: it is verified, then come the files, then the database; at the end the champion must answer."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import select

from lesion.backup.backup_manifest import FILES, BackupError, some, verify
from lesion.backup.dumps import kind_of, known_revisions
from lesion.backup.restore_targets import target_of
from lesion.catalogue.images import delete_image
from lesion.catalogue.snapshot_store import THREADS
from lesion.database import audit
from lesion.database.object_store import ObjectStore, image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, Image
from lesion.imaging.decode import bytes_sha256
from lesion.model.predictor import Predictor
from lesion.registry.registry import Registry


def restore(storage: Storage, folder: Path, actor: str, *, wipe: bool = False) -> dict[str, Any]:
    """Restore a backup; interrupted, the same call again goes on. No server and no worker may run meanwhile.

    Images that were deleted after the backup, as far as the backup or the database that is replaced knows of it, are
    deleted in what is restored as well.

    Args:
        storage: Where it is restored to: a database and a store of the backup's kinds.
        folder: The backup.
        actor: Who restores it, for the audit log.
        wipe: Remove what the database and the store have now.

    Returns:
        The backup's manifest.

    Raises:
        BackupError: The backup is not whole or of a newer Lesion, or the database or the store is not empty
            (``not_empty``); the message says what would be lost. Nothing was touched then.
        ConfigError: The database cannot be reached, or PostgreSQL's tools are missing or too old.
        StoreError: The store does not answer.
        BundleError: What was restored does not answer as it should.
    """
    manifest = verify(folder)
    _check_kind(storage, manifest)
    target = target_of(storage)
    target.check(manifest["database"]["server"])
    files = {
        name.removeprefix(f"{FILES}/"): facts for name, facts in manifest["files"].items() if name.startswith(FILES)
    }
    rows = target.rows(manifest["sha256"])
    other = _other_content(storage.store, files)
    if (rows or other) and not wipe:
        raise BackupError(f"{_loss(rows, other)} --wipe removes them for good. Nothing was touched.", code="not_empty")
    deleted = target.clear(manifest["sha256"]) | set(manifest["deleted"])
    for key in other:
        storage.store.delete(key)
    _put_files(storage.store, ObjectStore(str(folder / FILES), {}), set(files) - {image_key(one) for one in deleted})

    def finish(fresh: Storage) -> None:
        fresh.upgrade()
        _delete_again(fresh, deleted, actor)
        with fresh.session() as session:
            audit.record(session, actor, "storage.restored", manifest["sha256"], taken_at=manifest["taken_at"])

    dumps = {part: folder / name for part, name in manifest["database"]["files"].items()}
    target.load(dumps, finish)
    check_champion(storage)
    return manifest


def check_champion(storage: Storage) -> str | None:
    """Load the champion of a storage and compare its answers with its golden ones; returns its version.

    Raises:
        BundleError: It is not whole, or answers otherwise.
        StoreError: The store lacks it, or does not answer.
    """
    registry = Registry(storage)
    champion = registry.champion()
    if champion is None:
        return None
    Predictor.load(registry.fetch(champion.version), device="cpu")
    return champion.version


def _check_kind(storage: Storage, manifest: Mapping[str, Any]) -> None:
    kind = manifest["database"]["kind"]
    if kind != kind_of(storage):
        raise BackupError(
            f"The backup is of {kind}, and storage.database is {kind_of(storage)}. Restore into the same kind.",
            code="database_kind",
        )
    if manifest["revision"] not in known_revisions():
        raise BackupError(
            f"The backup is of Lesion {manifest['lesion']}, whose database (revision {manifest['revision']}) this "
            "version does not know. Update Lesion, then restore.",
            code="backup_newer",
        )


def _other_content(store: ObjectStore, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of what a store has beyond, or otherwise than, the backup."""
    there = store.names()
    with ThreadPoolExecutor(THREADS) as pool:
        same = pool.map(
            lambda key: key in files and bytes_sha256(store.get(key)) == files[key]["sha256"],
            there,
        )
        return [key for key, as_saved in zip(there, same, strict=True) if not as_saved]


def _loss(rows: Mapping[str, int], other: list[str]) -> str:
    found = []
    if rows:
        found.append("The database is not empty: " + ", ".join(f"{count} {name}" for name, count in rows.items()) + ".")
    if other:
        found.append(f"The store has {len(other)} files that the backup has not, or has otherwise: {some(other)}.")
    return " ".join(found)


def _put_files(store: ObjectStore, source: ObjectStore, keys: set[str]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda key: store.put(key, source.get(key)), sorted(keys - set(store.names()))))


def _delete_again(storage: Storage, deleted: set[str], actor: str) -> None:
    with storage.session() as session:
        known = set(session.scalars(select(Image.sha256).where(Image.status != DELETED)))
    for sha256 in sorted(deleted & known):
        delete_image(storage, sha256, actor, "deleted after the backup that was restored")
