"""The audit log: who did what to what, written in the transaction that does it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.database.tables import AuditEntry

UPLOAD_REJECTED = "upload.rejected"  # its detail has ``codes``: how many files of one request, by why


def record(session: Session, actor: str, action: str, subject: str, **detail: Any) -> None:  # noqa: ANN401 - JSON
    """Write down a change of state; it is kept if the change is.

    Args:
        session: The transaction of the change.
        actor: Who caused it: a key's name, ``local``, ``schedule``.
        action: What was done, such as ``image.released``.
        subject: To what: an image's hash, a version, a job's id.
        detail: JSON-ready particulars.
    """
    session.add(AuditEntry(actor=actor, action=action, subject=subject, detail=detail))


def entries(session: Session, *, subject: str | None = None, after: int = 0, limit: int = 100) -> list[AuditEntry]:
    """Return entries in the order they were written; ``after`` is the id of the last one seen."""
    statement = select(AuditEntry).where(AuditEntry.id > after).order_by(AuditEntry.id).limit(limit)
    if subject is not None:
        statement = statement.where(AuditEntry.subject == subject)
    return list(session.scalars(statement))
