"""Save snapshots in the store, and copy them to the machine that trains on them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from lesion.core.errors import NotFoundError
from lesion.core.files import bytes_sha256
from lesion.data.manifest import Manifest
from lesion.database.audit import record
from lesion.database.object_store import ObjectStore, image_key
from lesion.database.storage import Storage
from lesion.database.tables import EXCLUDED, REMOVED, Image, Snapshot, SnapshotImage

THREADS = 16  # for files: most of the time is spent waiting for a disk or the network
NO_ROOT = Path("/")  # the root of a stored manifest, which names no folder of the machine that wrote it


def store_manifest(storage: Storage, snapshot_id: str, manifest: Manifest) -> Snapshot:
    """Save a manifest in the store and return the row that describes it."""
    key = put_manifest(storage, snapshot_id, manifest)
    all_facts = manifest.facts()
    facts = {name: all_facts[name] for name in ("name", "policy", "images", "groups", "excluded")}
    facts |= {"classes": list(manifest.classes), "seed": manifest.seed}
    return Snapshot(id=snapshot_id, fingerprint=manifest.fingerprint, manifest_key=key, facts=facts)


def put_manifest(storage: Storage, snapshot_id: str, manifest: Manifest) -> str:
    """Save a snapshot's manifest in the store and return its key.

    The key has the content's hash, so that a file left by an interrupted attempt is not used by mistake.
    """
    with TemporaryDirectory() as folder:
        data = manifest.save(Path(folder) / "manifest.parquet").read_bytes()
    key = f"snapshots/{snapshot_id}/{bytes_sha256(data)[:16]}.parquet"
    storage.store.put(key, data)
    return key


def read_manifest(storage: Storage, key: str, root: Path) -> Manifest:
    """Read a snapshot's manifest from the store; its paths are relative to ``root``."""
    with TemporaryDirectory() as folder:
        stored = Path(folder) / "manifest.parquet"
        stored.write_bytes(storage.store.get(key))
        return Manifest.load(stored, root)


def add_snapshot(session: Session, snapshot: Snapshot, manifest: Manifest, *, actor: str) -> None:
    """Add a snapshot's row, and one row per image that it uses."""
    session.add(snapshot)
    session.flush()
    used = manifest.used().drop_duplicates("sha256")
    rows = [
        {"snapshot_id": snapshot.id, "sha256": sha256, "split": split}
        for sha256, split in zip(used["sha256"], used["split"], strict=True)
    ]
    session.execute(insert(SnapshotImage), rows)
    record(session, actor, "snapshot.taken", snapshot.id, images=len(rows), fingerprint=snapshot.fingerprint)


def get_snapshot(storage: Storage, snapshot_id: str) -> Snapshot:
    """Return a snapshot's row, or raise a NotFoundError (``snapshot_unknown``)."""
    with storage.session() as session:
        snapshot = session.get(Snapshot, snapshot_id)
    if snapshot is None:
        raise NotFoundError(f"There is no snapshot '{snapshot_id}'.", code="snapshot_unknown")
    return snapshot


def materialise(storage: Storage, snapshot_id: str, folder: Path) -> Path:
    """Prepare a snapshot for training on this machine, without the images that were removed since.

    Returns:
        The path of the manifest in ``folder``, for ``data.manifest``; ``data.root`` is ``image_root(storage)``.

    Raises:
        NotFoundError: There is no such snapshot.
        StoreError: The store does not answer.
        DamagedFileError: A file's content does not match its hash.
    """
    snapshot = get_snapshot(storage, snapshot_id)
    with storage.session() as session:
        removed = session.scalars(select(Image.sha256).where(Image.status.in_(REMOVED))).all()
    root = image_root(storage)
    if not storage.store.local:
        root.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(storage, snapshot.manifest_key, root)
    table = manifest.table[~manifest.table["sha256"].isin(removed)].reset_index(drop=True)
    if not storage.store.local:
        _fetch_images(storage, table.loc[table["split"] != EXCLUDED, "sha256"].tolist())
    return replace(manifest, table=table).save(folder / "manifest.parquet")


def image_root(storage: Storage) -> Path:
    """Return the folder on this machine that the paths of a snapshot are relative to."""
    return storage.store.folder or storage.cache


def _fetch_images(storage: Storage, hashes: Sequence[str]) -> None:
    """Copy images to this machine's cache, unless they are there already."""
    cache = ObjectStore(str(storage.cache), {})

    def fetch(sha256: str) -> None:
        key = image_key(sha256)
        if (storage.cache / key).is_file():
            return
        cache.put(key, storage.store.get_image(sha256))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fetch, hashes))
