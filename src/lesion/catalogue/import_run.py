"""The import: the data of the first model's run becomes the catalogue's first images, gate generation and snapshot."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from rich.progress import track
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.images import CatalogueError, last_snapshot, record
from lesion.catalogue.regrouping import misplaced
from lesion.catalogue.snapshot_store import NOWHERE, THREADS, add_snapshot, store_manifest
from lesion.core.errors import DataError
from lesion.data.manifest import Manifest
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, EXCLUDED, GATE, Generation, Image, Snapshot, now
from lesion.deduplication.duplicates import describe
from lesion.imaging.decode import bytes_sha256, decode, read

IMPORT = "import"  # the uploader of what is imported
_CHUNK = 1000
_COPIED = ("sha256", "pixel_sha256", "phash", "label", "patient", "width", "height", "mode", "format", "bytes",
           "brightness")  # fmt: skip


def import_manifest(storage: Storage, manifest: Manifest, *, progress: bool = True) -> str:
    """Take the data of a run into the store and the catalogue, as what every retraining adds to.

    The manifest's test images become gate generation 1, frozen; generation 2 is opened. Files come first, the rows in
    one transaction after them: an import that was killed is done again from the start and loses nothing.

    Args:
        storage: The loop's state.
        manifest: The run's manifest, with its images where it says.
        progress: Show a progress bar.

    Returns:
        The id of the first snapshot; the same one when the manifest was imported before.

    Raises:
        CatalogueError: Other data was imported before (``already_imported``).
        DataError: An image is not the one that the manifest describes, or there are no test images.
    """
    snapshot_id = manifest.fingerprint[:32]
    with storage.session() as session:
        if _is_imported(session, snapshot_id):
            return snapshot_id
    if manifest.split("test").empty:
        raise DataError(f"'{manifest.name}' has no test images, but they are what later models are judged by.")
    rows = _rows(manifest, _copy(storage, manifest, progress))
    stored = manifest.table.assign(path=manifest.table["sha256"].map(image_key), source_split="")
    stored = stored.sort_values("path", ignore_index=True)
    kept = replace(manifest, root=NOWHERE, table=stored, refused=())  # no path of the user's in the store
    snapshot = store_manifest(storage, snapshot_id, kept)
    try:
        with storage.session() as session:
            if not _is_imported(session, snapshot_id):
                _write(session, rows, manifest.name)
                add_snapshot(session, snapshot, kept, actor=IMPORT)
    except IntegrityError:  # another process imported at the same time
        with storage.session() as session:
            if not _is_imported(session, snapshot_id):
                raise
    return snapshot_id


def _is_imported(session: Session, snapshot_id: str) -> bool:
    if session.get(Snapshot, snapshot_id) is not None:
        return True
    other = last_snapshot(session)
    if other is not None:
        raise CatalogueError(
            f"The catalogue already holds the data of '{other.facts['name']}'. Give other data a storage of its own: "
            "another storage.database and storage.files.",
            code="already_imported",
            status=409,
        )
    return False


def _copy(storage: Storage, manifest: Manifest, progress: bool) -> dict[str, bytes]:
    """Bring the images into the store; return their thumbnails by hash."""
    files = manifest.table.drop_duplicates("sha256")

    def copy(path: str, sha256: str) -> tuple[str, bytes]:
        data = read(manifest.root / path)
        if bytes_sha256(data) != sha256:
            raise DataError(
                f"'{path}' was changed after the manifest was made. Put the file back, or train and import anew."
            )
        storage.store.put(image_key(sha256), data)
        return sha256, describe(decode(data)).thumbnail.tobytes()

    with ThreadPoolExecutor(THREADS) as pool:
        copied = pool.map(copy, files["path"], files["sha256"])
        return dict(track(copied, f"Taking in {len(files):,} images", len(files), disable=not progress))


def _rows(manifest: Manifest, thumbnails: dict[str, bytes]) -> list[dict[str, Any]]:
    """The catalogue's rows, in the manifest's order; of several files of the same bytes the first."""
    table = manifest.table.assign(split=manifest.table["split"].replace("test", GATE))
    table["group_key"] = table.groupby("group")["sha256"].transform("first")
    # A split by folder may hold related images on both sides: what is next to the gate is not trained on again.
    table["split"] = table["split"].mask(misplaced(table), EXCLUDED)
    table = table.drop_duplicates("sha256")
    fixed: dict[str, Any] = {"status": ACCEPTED, "source": f"manifest:{manifest.name}"[:200], "uploader": IMPORT}
    fixed |= {"created_at": now(), "changed_at": now()}
    names = [*_COPIED, "split", "group_key"]
    rows = [dict(zip(names, values, strict=True)) for values in table[names].itertuples(index=False, name=None)]
    for row in rows:
        row |= fixed
        row |= {"generation": 1 if row["split"] == GATE else None, "thumbnail": thumbnails[row["sha256"]]}
    return rows


def _write(session: Session, rows: list[dict[str, Any]], name: str) -> None:
    session.add_all([Generation(number=1, status="frozen", frozen_at=now()), Generation(number=2, status="open")])
    session.flush()
    known = set(session.scalars(select(Image.sha256)))
    fresh = [row for row in rows if row["sha256"] not in known]
    for start in range(0, len(fresh), _CHUNK):
        session.execute(insert(Image), fresh[start : start + _CHUNK])
    record(session, IMPORT, "data.imported", name, images=len(fresh))
