"""Takes feedback back that its sender has just given: the image that it stored, or the label that it corrected.

Each change is an entry of the audit log, whose id names it; the log keeps the change and that it was taken back. An
image that is taken back is refused no longer if it is sent again: somebody may have clicked on the wrong class.
"""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy.orm import Session

from lesion.catalogue.images import CatalogueError, get_image
from lesion.catalogue.label_corrections import correct_label
from lesion.core.errors import NotFoundError
from lesion.database.audit import FEEDBACK_UNDONE, LABEL_CORRECTED, newest_entry, record
from lesion.database.tables import ACCEPTED, DROPPED, QUARANTINED, WITHDRAWN, AuditEntry, Image, now

UNDO_HOURS = 24
_STORED = (f"image.{ACCEPTED}", f"image.{QUARANTINED}")  # actions of the audit log


def undo_feedback(session: Session, changes: Collection[int], actor: str) -> list[Image]:
    """Take back changes that a sender's feedback made less than a day ago; return the images, all or none changed.

    An image that was stored is dropped: its picture is deleted some days later, as for other dropped images. Models
    that were trained with it stay as they are, and later snapshots leave it out. A label that was corrected becomes
    what it was. The same call again changes nothing.

    Raises:
        NotFoundError: One of the ids is not that of a change by this sender's feedback (``change_unknown``).
        CatalogueError: Something else was done with an image since (``decision_changed``), or the change is older than
            ``UNDO_HOURS`` hours (``undo_too_late``).
    """
    return [_undo(session, change, actor) for change in sorted(set(changes))]


def _undo(session: Session, change: int, actor: str) -> Image:
    entry = session.get(AuditEntry, change)
    if entry is None or entry.actor != actor or not _is_feedback(entry):
        raise NotFoundError(f"There is no change {change} that your feedback made.", code="change_unknown")
    row = get_image(session, entry.subject, lock=True)
    newest = newest_entry(session, entry.subject) or entry
    if newest.action == FEEDBACK_UNDONE and newest.detail["change"] == change:
        return row
    if newest.id != change:
        raise CatalogueError(
            f"{newest.actor} changed the image '{row.sha256}' since: it is {row.status} as {row.label}.",
            code="decision_changed",
        )
    if entry.at < now() - timedelta(hours=UNDO_HOURS):
        raise CatalogueError(
            f"Feedback can be taken back for {UNDO_HOURS} hours. Ask an admin to delete the image or change it.",
            code="undo_too_late",
        )
    detail = {"change": change, "was": row.status, "label": row.label}
    if entry.action == LABEL_CORRECTED:
        correct_label(session, row.sha256, actor, entry.detail["was"])
    else:
        row.status, row.generation, row.changed_at = DROPPED, None, now()
        row.reason_code, row.reason = WITHDRAWN, "Its sender took it back."
    record(session, actor, FEEDBACK_UNDONE, row.sha256, **detail)
    return row


def _is_feedback(entry: AuditEntry) -> bool:
    stored = entry.action in _STORED and entry.detail.get("source") == "feedback"
    return stored or entry.action == LABEL_CORRECTED
