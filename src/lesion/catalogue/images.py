"""The catalogue of images: what is accepted, what waits for an admin, what is gone, and who trained on what.

Functions that take a session join the caller's transaction; those that take a storage also touch files. Every change is
recorded in the audit log of the same transaction.
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.counts import counts as counts
from lesion.catalogue.counts import last_snapshot as last_snapshot
from lesion.catalogue.counts import new_since as new_since
from lesion.catalogue.lineage import lineage_of_image as lineage_of_image
from lesion.catalogue.lineage import lineage_of_version as lineage_of_version
from lesion.core.errors import LesionError
from lesion.database.audit import record as record
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, DELETED, GATE, QUARANTINED, Generation, Image, now

PIXELS = "pixels"  # below Storage.cache: where a retraining keeps decoded images (its data.cache_dir)


class CatalogueError(LesionError):
    """An image that is not there, or is in no state for what is asked."""

    default_code = "image_unknown"
    default_status = 404


def image(session: Session, sha256: str) -> Image | None:
    """Return an image's row, whatever its status; None if it never came."""
    return session.scalar(select(Image).where(Image.sha256 == sha256))


def existing(session: Session, sha256: str, *, lock: bool = False) -> Image:
    """Return an image's row; ``lock`` it to change it.

    Raises:
        CatalogueError: There is none (``image_unknown``).
    """
    statement = select(Image).where(Image.sha256 == sha256)
    row = session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise CatalogueError(
            f"There is no image '{sha256[:64]}'. Give the SHA-256 of its file as 64 small hexadecimal digits."
        )
    return row


def images(
    session: Session, *, status: str | None = None, label: str | None = None, after: int = 0, limit: int = 100
) -> list[Image]:
    """Return images in the order they came; ``after`` is the id of the last one seen."""
    statement = select(Image).where(Image.id > after).order_by(Image.id).limit(limit)
    if status is not None:
        statement = statement.where(Image.status == status)
    if label is not None:
        statement = statement.where(Image.label == label)
    return list(session.scalars(statement))


def open_generation(session: Session) -> Generation:
    """Return the gate generation that gathers images; it is not frozen before this transaction ends.

    Raises:
        CatalogueError: Nothing was imported yet (``catalogue_empty``).
    """
    statement = select(Generation).where(Generation.status == "open").with_for_update(read=True)
    # One that is being frozen is waited for, and then no longer open: the second look finds its successor.
    found = session.scalar(statement) or session.scalar(statement)
    if found is None:
        raise CatalogueError(
            "The catalogue is empty: the first model's data must come in first, by scripts/models.py import.",
            code="catalogue_empty",
            status=409,
        )
    return found


def add_image(session: Session, row: Image) -> bool:
    """Add an image, unless its hash is there already; of two servers that add the same one, one gets False.

    An accepted image of the gate goes to the open generation. Its file must be in the store before.
    """
    if row.status == ACCEPTED and row.split == GATE:
        row.generation = open_generation(session).number
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        if image(session, row.sha256) is None:
            raise
        return False
    detail = {"label": row.label, "split": row.split, "source": row.source, "code": row.reason_code}
    record(session, row.uploader, f"image.{row.status}", row.sha256, **detail)
    return True


def release(session: Session, sha256: str, actor: str, label: str | None = None) -> Image:
    """Accept a quarantined image; again under the same label changes nothing.

    Args:
        session: The transaction.
        sha256: The image.
        actor: Who decided it.
        label: The right label, where the uploaded one was wrong; the caller checks that it is a class.

    Raises:
        CatalogueError: There is no such image, it is deleted (``not_quarantined``), or somebody else accepted it under
            another label (``accepted_otherwise``).
    """
    row = existing(session, sha256, lock=True)
    if row.status == ACCEPTED:
        if label not in (None, row.label):  # else who decides second would believe that it is theirs that counts
            raise CatalogueError(
                f"The image '{sha256}' is accepted as {row.label} already, so it cannot become {label}.",
                code="accepted_otherwise",
                status=409,
            )
        return row
    _require_quarantined(row)
    group = select(Image.split).where(Image.group_key == row.group_key, Image.status == ACCEPTED)
    row.split = session.scalar(group.order_by(Image.id).limit(1)) or row.split  # a group is on one side
    if row.split == GATE:
        row.generation = open_generation(session).number
    detail = {"label": label or row.label, "was": row.label, "code": row.reason_code, "split": row.split}
    row.status, row.label, row.changed_at = ACCEPTED, label or row.label, now()
    record(session, actor, "image.released", sha256, **detail)
    return row


def drop(storage: Storage, sha256: str, actor: str, reason: str) -> None:
    """Refuse a quarantined image for good: its pixels go, its tombstone stays.

    Raises:
        CatalogueError: There is no such image, it is not quarantined, or the reason is empty.
        StoreError: The store does not answer; call again.
    """
    _require(reason)
    with storage.session() as session:
        row = existing(session, sha256, lock=True)
        if row.reason_code != "dropped":
            _require_quarantined(row)
            _write_tombstone(session, row, actor, reason, "dropped")
    remove_files(storage, sha256)


def delete_image(storage: Storage, sha256: str, actor: str, reason: str) -> list[dict[str, Any]]:
    """Remove an image's pixels everywhere that Lesion keeps them; its tombstone stays and refuses it from now on.

    The tombstone is written first: an interruption leaves a file that nobody uses, and another call removes it.

    Returns:
        The versions that had seen it, as ``lineage_of_image`` lists them.

    Raises:
        CatalogueError: There is no such image, or the reason is empty.
        StoreError: The store does not answer; call again.
    """
    _require(reason)
    with storage.session() as session:
        row = existing(session, sha256, lock=True)
        if row.status != DELETED:
            _write_tombstone(session, row, actor, reason, "deleted")
        versions = lineage_of_image(session, sha256)
    remove_files(storage, sha256)
    return versions


def purge_deleted(storage: Storage) -> int:
    """Finish deletions that were interrupted, and those of this machine's cache; a worker does so when it starts.

    Returns:
        How many images are deleted in all.
    """
    with storage.session() as session:
        gone = session.scalars(select(Image.sha256).where(Image.status == DELETED)).all()
    for sha256 in gone:
        remove_files(storage, sha256)
    return len(gone)


def remove_files(storage: Storage, sha256: str) -> None:
    """Remove an image's file from the store, and its copies from this machine's cache."""
    storage.store.delete(image_key(sha256))
    decoded = storage.cache.glob(f"{PIXELS}/*/{sha256[:2]}/{sha256}.rgb")
    for copy in (storage.cache / image_key(sha256), *decoded):
        copy.unlink(missing_ok=True)


def _require(reason: str) -> None:
    if not reason.strip():
        raise CatalogueError("A reason is needed, for those who read the audit log.", code="reason_missing", status=422)


def _require_quarantined(row: Image) -> None:
    if row.status != QUARANTINED:
        raise CatalogueError(
            f"The image '{row.sha256}' is {row.status}, not quarantined: there is nothing to decide about it.",
            code="not_quarantined",
            status=409,
        )


def _write_tombstone(session: Session, row: Image, actor: str, reason: str, code: str) -> None:
    record(session, actor, f"image.{code}", row.sha256, reason=reason, label=row.label, was=row.status)
    row.status, row.reason_code, row.reason = DELETED, code, reason
    row.thumbnail, row.changed_at = b"", now()
