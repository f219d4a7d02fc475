"""Restore a backup: verify it, restore the files and then the database, and check the answers of the champion."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import select

from lesion.backup.backup_manifest import FILES, BackupError, BackupManifest, verify_backup
from lesion.backup.dumps import database_kind
from lesion.backup.restore_targets import target_of
from lesion.catalogue.images import delete_image
from lesion.catalogue.snapshot_store import THREADS
from lesion.core.files import FileFacts, bytes_sha256
from lesion.core.text import join_names
from lesion.database import audit
from lesion.database.migrations.runner import known_revisions
from lesion.database.object_store import ObjectStore, image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, Image
from lesion.model.predictor import Predictor
from lesion.registry.registry import Registry


def restore_backup(storage: Storage, folder: Path, actor: str, *, wipe: bool = False) -> BackupManifest:
    """Restore a backup; after an interruption the same call continues. No server and no worker may run meanwhile.

    Images that were deleted after the backup are deleted again, if the backup or the replaced database records it.
    With ``wipe`` the present content of the database and the store is removed.

    Raises:
        BackupError: The backup is not complete or of a newer Lesion, or the database or the store is not empty
            (``not_empty``; the message tells what would be lost). Nothing was changed then.
        ConfigError: The database cannot be reached, or PostgreSQL's tools are missing or too old.
        StoreError: The store does not answer.
        BundleError: The restored champion gives other answers than before.
    """
    manifest = verify_backup(folder)
    _check_compatible(storage, manifest)
    target = target_of(storage)
    target.check(manifest["database"]["server"])
    files = {
        name.removeprefix(f"{FILES}/"): facts for name, facts in manifest["files"].items() if name.startswith(FILES)
    }
    rows = target.rows(manifest["sha256"])
    surplus = _surplus_keys(storage.store, files)
    if (rows or surplus) and not wipe:
        raise BackupError(
            f"{_describe_loss(rows, surplus)} --wipe removes them permanently. Nothing was changed.", code="not_empty"
        )
    deleted = target.clear(manifest["sha256"]) | set(manifest["deleted"])
    storage.store.mark()  # it may have been lost, while the database still names its files
    for key in surplus:
        storage.store.delete(key)
    keys = set(files) - {image_key(sha256) for sha256 in deleted} - set(storage.store.names())
    source = ObjectStore(str(folder / FILES), {})
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda key: storage.store.put(key, source.get(key)), sorted(keys)))

    def finish(restored: Storage) -> None:
        restored.upgrade()
        _delete_again(restored, deleted, actor)
        with restored.session() as session:
            audit.record(session, actor, "storage.restored", manifest["sha256"], taken_at=manifest["taken_at"])

    target.load({part: folder / name for part, name in manifest["database"]["files"].items()}, finish)
    _check_champion(storage)
    return manifest


def _check_champion(storage: Storage) -> None:
    """Load the champion, if there is one; a wrong golden answer raises a BundleError."""
    registry = Registry(storage)
    if champion := registry.champion():
        Predictor.load(registry.fetch(champion.version), device="cpu")


def _check_compatible(storage: Storage, manifest: BackupManifest) -> None:
    kind, here = manifest["database"]["kind"], database_kind(storage)
    if kind != here:
        raise BackupError(
            f"The backup is of {kind}, but storage.database is {here}. Restore into the same kind.",
            code="database_kind",
        )
    if manifest["revision"] not in known_revisions():
        raise BackupError(
            f"The backup is of Lesion {manifest['lesion']}, whose database (revision {manifest['revision']}) this "
            "version does not know. Update Lesion, then restore.",
            code="backup_newer",
        )


def _surplus_keys(store: ObjectStore, files: Mapping[str, FileFacts]) -> list[str]:
    """Return the keys of a store that the backup does not have, or has with other content."""
    keys = store.names()
    with ThreadPoolExecutor(THREADS) as pool:
        same = pool.map(lambda key: key in files and bytes_sha256(store.get(key)) == files[key]["sha256"], keys)
        return [key for key, is_same in zip(keys, same, strict=True) if not is_same]


def _describe_loss(rows: Mapping[str, int], surplus: list[str]) -> str:
    sentences = []
    if rows:
        counts = ", ".join(f"{count} {name}" for name, count in rows.items())
        sentences.append(f"The database is not empty: {counts}.")
    if surplus:
        names = join_names(surplus, quote="'")
        sentences.append(f"The store has {len(surplus)} files that differ from the backup or are not in it: {names}.")
    return " ".join(sentences)


def _delete_again(storage: Storage, deleted: set[str], actor: str) -> None:
    with storage.session() as session:
        present = set(session.scalars(select(Image.sha256).where(Image.status != DELETED)))
    for sha256 in sorted(deleted & present):
        delete_image(storage, sha256, actor, "deleted after the backup that was restored")
