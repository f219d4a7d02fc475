"""The audit log: who changed what and when, written in the transaction of the change."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.database.tables import AuditEntry

UPLOAD_REJECTED = "upload.rejected"  # the detail has ``codes``: number of rejected files of one request by code
LABEL_CORRECTED = "image.label_corrected"
PLAN_ADOPTED = "plan.adopted"  # the subject is the plan's hash; the detail has ``plan`` and ``reason``
FEEDBACK_UNDONE = "feedback.undone"  # the detail has ``change``: the id of the entry that was taken back


def record(session: Session, actor: str, action: str, subject: str, **detail: Any) -> None:  # noqa: ANN401 - JSON
    """Add an entry; it is committed or rolled back together with the change.

    ``actor`` is the name of an API key, ``local`` or ``schedule``; ``action`` for example ``image.released``;
    ``subject`` an image's hash, a version or a job's id. ``detail`` must be JSON-ready.
    """
    session.add(AuditEntry(actor=actor, action=action, subject=subject, detail=detail))


def newest_entry(session: Session, subject: str) -> AuditEntry | None:
    """Return the last entry about a subject; None without any."""
    about = select(AuditEntry).where(AuditEntry.subject == subject)
    return session.scalar(about.order_by(AuditEntry.id.desc()).limit(1))


def entries(session: Session, *, subject: str | None = None, after: int = 0, limit: int = 100) -> list[AuditEntry]:
    """Return one page of entries, the oldest first; ``after`` is the last id of the page before."""
    statement = select(AuditEntry).where(AuditEntry.id > after).order_by(AuditEntry.id).limit(limit)
    if subject is not None:
        statement = statement.where(AuditEntry.subject == subject)
    return list(session.scalars(statement))
