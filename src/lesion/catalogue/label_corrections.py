"""Corrections of labels: an image gets another class, and the audit log keeps who changed it, when and from which."""

from typing import Any, TypedDict

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.catalogue.decisions import RELEASE
from lesion.catalogue.images import CatalogueError, get_image, open_generation
from lesion.database.audit import LABEL_CORRECTED, record
from lesion.database.tables import DELETED, AuditEntry, Image, now

_RELABELING = (LABEL_CORRECTED, RELEASE)


class LabelChange(TypedDict):
    """One change of an image's label: when, by whom, from which class and to which one."""

    at: str
    actor: str
    was: str
    label: str


def correct_label(session: Session, sha256: str, actor: str, label: str) -> Image:
    """Give an image another label; its status and its side of the split stay, and the audit log keeps the old label.

    An image of a frozen gate generation leaves it and joins the open one: models were compared there with its old
    label, and what was counted must not change under them. The caller checks that the label is a class. A deleted
    image is a CatalogueError (``image_deleted``).
    """
    row = get_image(session, sha256, lock=True)
    if row.status == DELETED:
        raise CatalogueError(f"The image '{sha256}' was deleted, so that its label says nothing.", code="image_deleted")
    if row.label == label:
        return row
    detail: dict[str, Any] = {"label": label, "was": row.label, "split": row.split}
    if row.generation is not None:
        left, row.generation = row.generation, open_generation(session).number
        detail |= {"generation": row.generation, "left": left} if left != row.generation else {}
    row.label, row.doubt, row.changed_at = label, None, now()  # the doubt was about the old label
    record(session, actor, LABEL_CORRECTED, sha256, **detail)
    return row


def label_history(session: Session, sha256: str) -> list[LabelChange]:
    """Return the changes of an image's label, the oldest first: by corrections and by releases under another label."""
    changed = select(AuditEntry).where(AuditEntry.subject == sha256, AuditEntry.action.in_(_RELABELING))
    return [
        {"at": entry.at.isoformat(), "actor": entry.actor, "was": entry.detail["was"], "label": entry.detail["label"]}
        for entry in session.scalars(changed.order_by(AuditEntry.id))
        if entry.detail["was"] != entry.detail["label"]
    ]
