"""Take what identifies a person from images that an earlier version stored as they were sent.

An image gets the hash of its new file, in its row and in all snapshots, whose manifests are written again. Each step
can be repeated: after an interruption another call finishes what is left.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from rich.progress import track
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from lesion.catalogue.images import delete_image, find_image, get_image, images_as_sent, remove_files
from lesion.catalogue.snapshot_store import NO_ROOT, put_manifest, read_manifest
from lesion.core.errors import ConflictError, ImageError
from lesion.core.files import bytes_sha256
from lesion.data.manifest import Manifest
from lesion.database.audit import record
from lesion.database.object_store import DamagedFileError, image_key
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Image, Job, Snapshot, SnapshotImage, now
from lesion.identity.identity_key import open_pseudonyms
from lesion.identity.pseudonyms import Pseudonyms, is_patient_pseudonym
from lesion.identity.received_files import ReceivedFile, deidentify
from lesion.imaging.limits import DEFAULT_LIMITS

logger = logging.getLogger(__name__)

_File: TypeAlias = tuple[str, int]  # hash and size
_REPLACED = "image.deidentified"  # the subject is the new hash, and the detail has the old one


@dataclass(frozen=True, slots=True)
class RemovalSummary:
    """What `remove_identity` did."""

    checked: int  # images
    rewritten: int  # images whose file held something that was removed
    unreadable: int  # images that cannot be decoded any more, and were left as they are
    manifests: int  # of snapshots, which were written again


def remove_identity(storage: Storage, actor: str, *, progress: bool = True) -> RemovalSummary:
    """Write the files of images again that were stored as they were sent, and remove the old ones.

    Raises:
        ConflictError: A retraining is waiting or running (``job_active``): it reads the files.
        StoreError: The store does not answer; call again.
    """
    pseudonyms = open_pseudonyms(storage)
    with storage.session() as session:
        if session.scalar(select(Job.id).where(Job.active == 1)) is not None:
            raise ConflictError(
                "A retraining is waiting or running, and reads the images. Wait for its end, or cancel it, and call "
                "again.",
                code="job_active",
            )
        hashes = images_as_sent(session)
    rewritten = unreadable = 0
    for sha256 in track(hashes, f"Checking {len(hashes):,} images", disable=not progress):
        try:
            rewritten += _rewrite(storage, sha256, pseudonyms, actor)
        except (ImageError, DamagedFileError) as error:
            unreadable += 1
            logger.warning("the image %s was left as it is: %s", sha256, error.message)
    with storage.session() as session:
        entries = session.scalars(select(AuditEntry).where(AuditEntry.action == _REPLACED)).all()
        sizes = dict(session.execute(select(Image.sha256, Image.bytes)).all())
        replaced = {entry.detail["was"]: (entry.subject, sizes[entry.subject]) for entry in entries}
    manifests = _rewrite_manifests(storage, replaced, pseudonyms)
    for old in replaced:
        remove_files(storage, old)
    return RemovalSummary(len(hashes), rewritten, unreadable, manifests)


def _rewrite(storage: Storage, sha256: str, pseudonyms: Pseudonyms, actor: str) -> bool:
    """Check one image, and return whether its file was replaced."""
    data = storage.store.get_image(sha256)
    file = deidentify(data, replace(DEFAULT_LIMITS, max_bytes=len(data), max_pixels=2**40, min_side=1), pseudonyms)
    new = bytes_sha256(file.data)
    with storage.session() as session:
        other = find_image(session, new)
    if new != sha256 and other is not None:
        delete_image(storage, sha256, actor, f"Without what identified a person its file is the same as {new}.")
        return True
    storage.store.put(image_key(new), file.data)
    with storage.session() as session:
        row = get_image(session, sha256, lock=True)
        row.sent_hash, row.changed_at = file.sent_hash, now()
        if new != sha256:
            _replace(session, row, file, new)
            record(session, actor, _REPLACED, new, was=sha256)
    return new != sha256


def _replace(session: Session, row: Image, file: ReceivedFile, new: str) -> None:
    """Give a row and its snapshots another hash; the database lets none of them name an image that is not there."""
    used = session.scalars(select(SnapshotImage).where(SnapshotImage.sha256 == row.sha256)).all()
    uses = [{"snapshot_id": use.snapshot_id, "sha256": new, "split": use.split} for use in used]
    session.execute(delete(SnapshotImage).where(SnapshotImage.sha256 == row.sha256))
    row.sha256, row.bytes, row.patient = new, len(file.data), file.patient or row.patient
    session.flush()
    if uses:
        session.execute(insert(SnapshotImage), uses)


def _rewrite_manifests(storage: Storage, replaced: Mapping[str, _File], pseudonyms: Pseudonyms) -> int:
    """Write the manifests again that name a hash that was replaced, or a patient as the sender did."""
    with storage.session() as session:
        snapshots = session.execute(select(Snapshot.id, Snapshot.manifest_key)).all()
    written = 0
    for snapshot_id, key in snapshots:
        manifest = _rewritten(read_manifest(storage, key, NO_ROOT), replaced, pseudonyms)
        if manifest is None:
            continue
        new = put_manifest(storage, snapshot_id, manifest)
        with storage.session() as session:
            session.get_one(Snapshot, snapshot_id).manifest_key = new
        storage.store.delete(key)
        written += 1
    return written


def _rewritten(manifest: Manifest, replaced: Mapping[str, _File], pseudonyms: Pseudonyms) -> Manifest | None:
    """Return a manifest with new hashes and pseudonyms; None if nothing has to change."""
    table = manifest.table
    known = table["patient"].map(lambda name: not name or is_patient_pseudonym(name))
    if known.all() and not table["sha256"].isin(replaced).any():
        return None
    files = [replaced.get(sha256, (sha256, size)) for sha256, size in zip(table["sha256"], table["bytes"], strict=True)]
    patients = table["patient"].where(known, table["patient"].map(pseudonyms.patient))
    table = table.assign(sha256=[new for new, _ in files], bytes=[size for _, size in files], patient=patients)
    table["path"] = table["sha256"].map(image_key)
    table = table.sort_values("path", ignore_index=True)
    return replace(manifest, table=table)
