"""Decisions about quarantined images: release, drop, and taking either back.

Each decision is an entry of the audit log, whose id names it. A dropped image is refused at once; its picture is kept
for ``KEPT_DAYS`` days, so that the decision can be taken back.
"""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lesion.catalogue.images import CatalogueError, get_image, open_generation, remove_deleted, require_reason
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, DELETED, DROPPED, GATE, QUARANTINED, AuditEntry, Image, now

KEPT_DAYS = 7  # of the picture of a dropped image
RELEASE, DROP, UNDO = "image.released", "image.dropped", "image.undone"  # actions of the audit log


def release(session: Session, sha256: str, actor: str, label: str | None = None) -> Image:
    """Accept a quarantined image; if it is accepted under the same label already, nothing changes.

    ``label`` is the correct label, if the uploaded one was wrong; the caller checks that it is a class. The image may
    be removed (CatalogueError ``not_quarantined``), or accepted under another label (``accepted_otherwise``).
    """
    row = get_image(session, sha256, lock=True)
    if row.status == ACCEPTED:
        if label not in (None, row.label):  # or the second admin would believe that the own decision counts
            raise CatalogueError(
                f"The image '{sha256}' is accepted as {row.label} already, so it cannot become {label}.",
                code="accepted_otherwise",
            )
        return row
    _require_quarantined(row)
    accepted = select(Image.split).where(Image.group_key == row.group_key, Image.status == ACCEPTED)
    row.split = session.scalar(accepted.order_by(Image.id).limit(1)) or row.split  # a group has one split
    if row.split == GATE:
        row.generation = open_generation(session).number
    detail = {"label": label or row.label, "was": row.label, "code": row.reason_code, "split": row.split}
    row.status, row.label, row.changed_at = ACCEPTED, label or row.label, now()
    record(session, actor, RELEASE, sha256, **detail)
    return row


def drop(session: Session, sha256: str, actor: str, reason: str) -> Image:
    """Refuse a quarantined image from now on; its picture is kept for ``KEPT_DAYS`` days.

    If it was dropped already, nothing changes. It may be accepted or deleted (CatalogueError ``not_quarantined``); an
    empty reason is an InvalidValueError.
    """
    require_reason(reason)
    row = get_image(session, sha256, lock=True)
    if row.status == DROPPED or row.reason_code == "dropped":
        return row
    _require_quarantined(row)
    waited_for = {"reason_code": row.reason_code, "reason": row.reason}
    record(session, actor, DROP, sha256, reason=reason, label=row.label, was=row.status, waited_for=waited_for)
    row.status, row.reason_code, row.reason, row.changed_at = DROPPED, "dropped", reason, now()
    return row


def last_decision(session: Session, sha256: str) -> AuditEntry | None:
    """Return the newest release, drop or undo of an image; None if nobody decided about it."""
    decisions = select(AuditEntry).where(AuditEntry.subject == sha256, AuditEntry.action.in_((RELEASE, DROP, UNDO)))
    return session.scalar(decisions.order_by(AuditEntry.id.desc()).limit(1))


def recent_decisions(session: Session, limit: int) -> list[tuple[Image, AuditEntry]]:
    """Return the images whose newest decision can be undone, with that decision; the last one first."""
    decided = AuditEntry.action.in_((RELEASE, DROP, UNDO))
    newest = select(func.max(AuditEntry.id)).where(decided).group_by(AuditEntry.subject)
    statement = select(Image, AuditEntry).join(AuditEntry, AuditEntry.subject == Image.sha256)
    undoable = AuditEntry.id.in_(newest), AuditEntry.action != UNDO, Image.status != DELETED
    rows = session.execute(statement.where(*undoable).order_by(AuditEntry.id.desc()).limit(limit))
    return [(row, entry) for row, entry in rows]


def undo(session: Session, sha256: str, actor: str, expected: int | None = None) -> Image:
    """Take the newest decision about an image back: it is quarantined again, under the label of its upload.

    Models that were trained with it stay as they are; later snapshots leave it out. ``expected`` is the id of the
    decision that the caller saw. The same call again changes nothing.

    Raises:
        CatalogueError: There is no decision (``nothing_to_undo``), another one followed the expected one
            (``decision_changed``), or the image was deleted since (``picture_deleted``).
    """
    row = get_image(session, sha256, lock=True)
    entry = last_decision(session, sha256)
    if entry is None:
        raise CatalogueError(f"Nobody released or dropped the image '{sha256}'.", code="nothing_to_undo")
    undone = entry.action == UNDO
    if expected not in (None, entry.detail["decision"] if undone else entry.id):
        raise CatalogueError(
            f"{entry.actor} decided about the image '{sha256}' meanwhile: it is {row.status}.", code="decision_changed"
        )
    if undone:
        return row
    if row.status == DELETED:
        raise CatalogueError(
            f"The picture of the image '{sha256}' is deleted, so this cannot be undone.", code="picture_deleted"
        )
    if entry.action == RELEASE:
        row.label, row.generation = entry.detail["was"], None
    else:
        waited_for = entry.detail["waited_for"]
        row.reason_code, row.reason = waited_for["reason_code"], waited_for["reason"]
    record(session, actor, UNDO, sha256, decision=entry.id, was=row.status, label=row.label)
    row.status, row.changed_at = QUARANTINED, now()
    return row


def delete_dropped(storage: Storage) -> int:
    """Delete the pictures of images that were dropped more than ``KEPT_DAYS`` days ago, and return their number.

    An image is marked first: after an interruption, ``purge_deleted`` removes its file.
    """
    with storage.session() as session:
        overdue = select(Image).where(Image.status == DROPPED, Image.changed_at < now() - timedelta(days=KEPT_DAYS))
        rows = session.scalars(overdue.with_for_update()).all()
        for row in rows:
            record(session, "worker", "image.purged", row.sha256, days=KEPT_DAYS)
            row.status, row.thumbnail, row.changed_at = DELETED, b"", now()
    for row in rows:
        remove_deleted(storage, row.sha256)
    return len(rows)


def _require_quarantined(row: Image) -> None:
    if row.status != QUARANTINED:
        raise CatalogueError(
            f"The image '{row.sha256}' is {row.status}, not quarantined: there is nothing to decide about it.",
            code="not_quarantined",
        )
