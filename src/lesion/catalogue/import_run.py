"""Import a first model's data: the catalogue's first images, gate generations and snapshot."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich.progress import track
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.counts import last_snapshot
from lesion.catalogue.images import CatalogueError
from lesion.catalogue.regrouping import misplaced
from lesion.catalogue.snapshot_store import NO_ROOT, THREADS, add_snapshot, store_manifest
from lesion.core.errors import DataError
from lesion.core.files import bytes_sha256
from lesion.data.manifest import Manifest
from lesion.database.audit import record
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, EXCLUDED, GATE, Generation, Image, Snapshot, now
from lesion.deduplication.features import make_thumbnail
from lesion.identity.identity_key import open_pseudonyms
from lesion.identity.pseudonyms import Pseudonyms
from lesion.identity.received_files import deidentify
from lesion.imaging.decode import decode, read
from lesion.promotion.comparison import Selection

IMPORT = "import"  # the uploader of imported images
_CHUNK = 1000  # rows per INSERT
_COPIED = ("sha256", "sent_hash", "pixel_sha256", "phash", "label", "patient", "width", "height", "mode", "format",
           "device", "bytes", "brightness")  # fmt: skip


def import_manifest(storage: Storage, manifest: Manifest, *, progress: bool = True) -> str:
    """Import the data of a training run, to which every retraining adds; return the id of the first snapshot.

    The manifest's test images become gate generation 1, which is frozen; generation 2 is opened. Files are stored
    first, without what identifies a person, then all rows are added in one transaction: an interrupted import can be
    started again and loses nothing, and a second import of the same manifest returns the same id.

    Raises:
        CatalogueError: Other data was imported before (``already_imported``).
        DataError: An image has changed since the manifest was made, or there are no test images.
    """
    snapshot_id = manifest.fingerprint[:32]
    with storage.session() as session:
        if _is_imported(session, snapshot_id):
            return snapshot_id
    if manifest.split("test").empty:
        raise DataError(f"'{manifest.name}' has no test images, but later models are judged by them.")
    pseudonyms = open_pseudonyms(storage)
    files = _store_images(storage, manifest, pseudonyms, progress)
    manifest = replace(manifest, table=_as_stored(manifest.table, files, pseudonyms))
    rows = _rows(manifest, {file.sha256: file for file in files.values()})
    table = manifest.table.assign(path=manifest.table["sha256"].map(image_key), source_split="")
    table = table.sort_values("path", ignore_index=True)
    stored = replace(manifest, root=NO_ROOT, table=table, refused=())  # the store keeps no path of the user's machine
    snapshot = store_manifest(storage, snapshot_id, stored)
    try:
        with storage.session() as session:
            if not _is_imported(session, snapshot_id):
                _insert(session, rows, manifest.name)
                add_snapshot(session, snapshot, stored, actor=IMPORT)
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
            f"The catalogue already holds the data of '{other.facts['name']}'. Use a separate storage for other data: "
            "another storage.database and storage.files.",
            code="already_imported",
        )
    return False


@dataclass(frozen=True, slots=True)
class _StoredFile:
    sha256: str  # of what was stored
    size: int
    sent_hash: str
    patient: str  # a pseudonym, if the file itself names a patient
    thumbnail: bytes


def _store_images(
    storage: Storage, manifest: Manifest, pseudonyms: Pseudonyms, progress: bool
) -> dict[str, _StoredFile]:
    """Copy the images to the store, and return what was stored by the hash of the file that is in the manifest."""
    files, limits = manifest.table.drop_duplicates("sha256"), manifest.limits

    def copy(path: str, sha256: str) -> tuple[str, _StoredFile]:
        data = read(manifest.root / path, limits)
        if bytes_sha256(data) != sha256:
            raise DataError(
                f"'{path}' was changed after the manifest was made. Restore the file, or train and import again."
            )
        file = deidentify(data, limits, pseudonyms)
        stored = bytes_sha256(file.data)
        storage.store.put(image_key(stored), file.data)
        thumbnail = make_thumbnail(decode(data, limits)).tobytes()
        return sha256, _StoredFile(stored, len(file.data), file.sent_hash, file.patient, thumbnail)

    with ThreadPoolExecutor(THREADS) as pool:
        copies = pool.map(copy, files["path"], files["sha256"])
        return dict(track(copies, f"Importing {len(files):,} images", len(files), disable=not progress))


def _as_stored(table: pd.DataFrame, files: Mapping[str, _StoredFile], pseudonyms: Pseudonyms) -> pd.DataFrame:
    """Return a manifest's table with the facts of the files that were stored, and pseudonyms for patients."""
    stored = [files[sha256] for sha256 in table["sha256"]]
    named = [pseudonyms.patient(name) for name in table["patient"]]
    return table.assign(
        sha256=[file.sha256 for file in stored],
        bytes=[file.size for file in stored],
        patient=[file.patient or name for file, name in zip(stored, named, strict=True)],
    )


def _rows(manifest: Manifest, files: Mapping[str, _StoredFile]) -> list[dict[str, Any]]:
    """Return the catalogue's rows in the manifest's order; of files with the same bytes only the first."""
    table = manifest.table.assign(split=manifest.table["split"].replace("test", GATE))
    table["group_key"] = table.groupby("group")["sha256"].transform("first")
    # A split by folder may have related images on both sides: relatives of gate images are not trained on again.
    table["split"] = table["split"].mask(misplaced(table), EXCLUDED)
    table = table.drop_duplicates("sha256")
    table["sent_hash"] = [files[sha256].sent_hash for sha256 in table["sha256"]]
    common: dict[str, Any] = {"status": ACCEPTED, "source": f"manifest:{manifest.name}"[:200], "uploader": IMPORT}
    common |= {"created_at": now(), "changed_at": now()}
    columns = [*_COPIED, "split", "group_key"]
    rows = [dict(zip(columns, values, strict=True)) for values in table[columns].itertuples(index=False, name=None)]
    for row in rows:
        generation = 1 if row["split"] == GATE else None
        row |= common | {"generation": generation, "thumbnail": files[row["sha256"]].thumbnail}
    return rows


def _insert(session: Session, rows: list[dict[str, Any]], name: str) -> None:
    first = Generation(number=1, status="frozen", selection=Selection.IMPORTED.value, frozen_at=now())
    session.add_all([first, Generation(number=2, status="open")])
    session.flush()
    existing = set(session.scalars(select(Image.sha256)))
    new = [row for row in rows if row["sha256"] not in existing]
    for start in range(0, len(new), _CHUNK):
        session.execute(insert(Image), new[start : start + _CHUNK])
    record(session, IMPORT, "data.imported", name, images=len(new))
