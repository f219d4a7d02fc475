"""Which images nobody reviewed: uploads that were never released, and whose label was never corrected."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session

from lesion.catalogue.decisions import RELEASE
from lesion.database.audit import LABEL_CORRECTED
from lesion.database.tables import ACCEPTED, GATE, QUARANTINED, TRAINING, AuditEntry, Generation, Image

_COLUMNS = Image.sha256, Image.label, Image.group_key, Image.split, Image.reason_code
_SENT = ("upload", "feedback")  # sources of images that came one by one, and not with the first model's data


def is_unreviewed() -> ColumnElement[bool]:
    """Return the condition that somebody sent an image and nobody reviewed its label."""
    reviewed = select(AuditEntry.subject).where(AuditEntry.action.in_((RELEASE, LABEL_CORRECTED)))
    return and_(Image.source.in_(_SENT), Image.sha256.not_in(reviewed))


class StoredLabel(NamedTuple):
    """An image of the catalogue and the label that it has there."""

    sha256: str
    label: str
    group_key: str
    split: str
    reason_code: str


def _select_changeable() -> Select[str, str, str, str, str]:
    """Select the accepted images that a training may learn from or that gather for the gate.

    What is frozen never changes again.
    """
    open_numbers = select(Generation.number).where(Generation.status == "open")
    gathers = and_(Image.split == GATE, Image.generation.in_(open_numbers))
    columns = select(*_COLUMNS)
    return columns.where(Image.status == ACCEPTED, or_(Image.split.in_(TRAINING), gathers))


def doubtable_images(session: Session) -> list[StoredLabel]:
    """Return the images whose labels a check may doubt, the oldest first: nobody reviewed them, none is frozen."""
    rows = session.execute(_select_changeable().where(is_unreviewed()).order_by(Image.id))
    return [StoredLabel._make(row) for row in rows]


def waiting_images(session: Session) -> list[StoredLabel]:
    """Return the images in quarantine, the oldest first, with the labels that they were uploaded with."""
    columns = select(*_COLUMNS)
    rows = session.execute(columns.where(Image.status == QUARANTINED).order_by(Image.id))
    return [StoredLabel._make(row) for row in rows]


def trusted_images(session: Session, limit: int) -> list[StoredLabel]:
    """Return images to learn from whose labels are known to be right, at most ``limit`` of each class.

    Of more, those with the lowest hashes are taken: the same ones each time.
    """
    trusted = _select_changeable().where(~is_unreviewed(), Image.split.in_(TRAINING)).order_by(Image.sha256)
    labels = session.scalars(select(Image.label).where(Image.status == ACCEPTED).distinct().order_by(Image.label)).all()
    rows = (row for label in labels for row in session.execute(trusted.where(Image.label == label).limit(limit)))
    return [StoredLabel._make(row) for row in rows]


def unreviewed_hashes(session: Session, generations: Sequence[int]) -> set[str]:
    """Return the hashes of the images in gate generations that nobody reviewed."""
    frozen = Image.status == ACCEPTED, Image.split == GATE, Image.generation.in_(generations)
    return set(session.scalars(select(Image.sha256).where(*frozen, is_unreviewed())))
