"""How snapshots are kept in the store, and brought to a machine that trains on them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from lesion.catalogue.images import CatalogueError, record
from lesion.data.manifest import Manifest
from lesion.database.object_store import ObjectStore, StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, EXCLUDED, Image, Snapshot, SnapshotImage
from lesion.imaging.decode import bytes_sha256

THREADS = 16  # for files: most of the time goes into waiting for a disk or the network
NOWHERE = Path("/")  # a manifest in the store names no folder of the machine that wrote it


def store_manifest(storage: Storage, snapshot_id: str, manifest: Manifest) -> Snapshot:
    """Put a manifest into the store, and return the row that describes it."""
    with TemporaryDirectory() as folder:
        data = manifest.save(Path(folder) / "manifest.parquet").read_bytes()
    # Named by its content: what an interrupted attempt left is not taken for what this one wrote.
    key = f"snapshots/{snapshot_id}/{bytes_sha256(data)[:16]}.parquet"
    storage.store.put(key, data)
    facts = {name: manifest.facts()[name] for name in ("name", "policy", "images", "groups", "excluded")}
    facts |= {"classes": list(manifest.classes), "seed": manifest.seed}
    return Snapshot(id=snapshot_id, fingerprint=manifest.fingerprint, manifest_key=key, facts=facts)


def add_snapshot(session: Session, snapshot: Snapshot, manifest: Manifest, *, actor: str) -> None:
    """Add a snapshot's row and one a image that it uses."""
    session.add(snapshot)
    session.flush()
    used = manifest.table[manifest.table["split"] != EXCLUDED].drop_duplicates("sha256")
    rows = [
        {"snapshot_id": snapshot.id, "sha256": sha256, "split": split}
        for sha256, split in zip(used["sha256"], used["split"], strict=True)
    ]
    session.execute(insert(SnapshotImage), rows)
    record(session, actor, "snapshot.taken", snapshot.id, images=len(rows), fingerprint=snapshot.fingerprint)


def find_snapshot(storage: Storage, snapshot_id: str) -> Snapshot:
    """Return a snapshot's row.

    Raises:
        CatalogueError: There is none (``snapshot_unknown``).
    """
    with storage.session() as session:
        found = session.get(Snapshot, snapshot_id)
    if found is None:
        raise CatalogueError(f"There is no snapshot '{snapshot_id}'.", code="snapshot_unknown")
    return found


def materialise(storage: Storage, snapshot_id: str, folder: Path) -> Path:
    """Make a snapshot usable for a training on this machine, without the images that were deleted since.

    Args:
        storage: The loop's state.
        snapshot_id: The snapshot.
        folder: Where ``manifest.parquet`` is written.

    Returns:
        That file, for ``data.manifest``; ``data.root`` is ``image_root(storage)``.

    Raises:
        CatalogueError: There is no such snapshot.
        StoreError: The store does not answer, or a file has other bytes than its name says.
    """
    snapshot = find_snapshot(storage, snapshot_id)
    with storage.session() as session:
        gone = session.scalars(select(Image.sha256).where(Image.status == DELETED)).all()
    root = image_root(storage)
    root.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as temporary:
        stored = Path(temporary) / "manifest.parquet"
        stored.write_bytes(storage.store.get(snapshot.manifest_key))
        manifest = Manifest.load(stored, root)
    table = manifest.table[~manifest.table["sha256"].isin(gone)].reset_index(drop=True)
    if not storage.store.local:
        fetch_images(storage, table.loc[table["split"] != EXCLUDED, "sha256"].tolist())
    return replace(manifest, table=table).save(folder / "manifest.parquet")


def image_root(storage: Storage) -> Path:
    """Return the folder on this machine that the paths of snapshots are relative to."""
    return storage.store.folder or storage.cache


def fetch_images(storage: Storage, hashes: Sequence[str]) -> None:
    """Bring images to this machine's cache, each once.

    Raises:
        StoreError: The store does not answer, or a file has other bytes than its name says.
    """
    cache = ObjectStore(str(storage.cache), {})

    def fetch(sha256: str) -> None:
        key = image_key(sha256)
        if (storage.cache / key).is_file():
            return
        data = storage.store.get(key)
        if bytes_sha256(data) != sha256:
            raise StoreError(f"The store's '{key}' has other bytes than its name says. Restore it from a backup.")
        cache.put(key, data)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fetch, hashes))
