"""Numbers of images in the catalogue."""

from collections.abc import Iterable
from typing import TypedDict, TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from lesion.database.audit import LABEL_CORRECTED
from lesion.database.tables import (
    ACCEPTED,
    DELETED,
    DROPPED,
    GATE,
    QUARANTINED,
    TRAINING,
    AuditEntry,
    Generation,
    Image,
    ModelVersion,
    Snapshot,
    SnapshotImage,
)

K = TypeVar("K")


class GenerationCounts(TypedDict):
    """The accepted images of a gate generation, by label."""

    number: int
    status: str
    labels: dict[str, int]


class ImageCounts(TypedDict):
    """Images by status; accepted images by label and split, and by gate generation."""

    status: dict[str, int]
    labels: dict[str, dict[str, int]]
    generations: list[GenerationCounts]


class NewImages(TypedDict):
    """What the next retraining would add.

    ``images`` counts new accepted images of train, val and calibration, ``held_out`` those in the open gate generation,
    ``splits`` both by split and label. ``unreviewed`` counts held-out images in quarantine, and ``relabeled`` older
    images whose labels were corrected meanwhile.
    """

    images: int
    held_out: int
    unreviewed: int
    relabeled: int
    splits: dict[str, dict[str, int]]


def count_images(session: Session) -> ImageCounts:
    """Count all images."""
    number = func.count()
    statuses = session.execute(select(Image.status, number).group_by(Image.status)).all()
    accepted = select(Image.label, Image.split, number).where(Image.status == ACCEPTED)
    gate = select(Image.generation, Image.label, number).where(Image.status == ACCEPTED, Image.split == GATE)
    gate_labels = nested_counts(session.execute(gate.group_by(Image.generation, Image.label)).all())
    return {
        "status": {ACCEPTED: 0, QUARANTINED: 0, DROPPED: 0, DELETED: 0} | dict(statuses),
        "labels": nested_counts(session.execute(accepted.group_by(Image.label, Image.split)).all()),
        "generations": [
            {"number": row.number, "status": row.status, "labels": gate_labels.get(row.number, {})}
            for row in session.scalars(select(Generation).order_by(Generation.number))
        ],
    }


def count_new_images(session: Session, snapshot_id: str | None = None) -> NewImages:
    """Count the accepted images that a snapshot lacks; by default the last snapshot that became a model.

    The images of a canceled or failed retraining still count as new: no model has learned from them.
    """
    if snapshot_id is None:
        last = last_snapshot(session, Snapshot.id.in_(select(ModelVersion.snapshot_id)))
    else:
        last = session.get(Snapshot, snapshot_id)
    snapshot_id = last.id if last else ""
    included = select(SnapshotImage.sha256).where(SnapshotImage.snapshot_id == snapshot_id)
    new = select(Image.split, Image.label, func.count()).where(
        Image.status == ACCEPTED, Image.split.in_((*TRAINING, GATE)), Image.sha256.not_in(included)
    )
    splits = nested_counts(session.execute(new.group_by(Image.split, Image.label)).all())
    totals = {split: sum(labels.values()) for split, labels in splits.items()}
    images = sum(totals.get(split, 0) for split in TRAINING)
    return {
        "images": images,
        "held_out": totals.get(GATE, 0),
        "unreviewed": count_unreviewed(session),
        "relabeled": _count_relabeled(session, last) if last else 0,
        "splits": splits,
    }


def count_unreviewed(session: Session) -> int:
    """Count the held-out images in quarantine; those that came later are not compared on before they are reviewed."""
    return session.scalar(select(func.count()).where(Image.status == QUARANTINED, Image.split == GATE)) or 0


def _count_relabeled(session: Session, last: Snapshot) -> int:
    """Count the accepted images of a snapshot whose labels were corrected after it."""
    included = select(SnapshotImage.sha256).join(Image, Image.sha256 == SnapshotImage.sha256)
    included = included.where(SnapshotImage.snapshot_id == last.id, Image.status == ACCEPTED)
    changed = select(func.count(AuditEntry.subject.distinct())).where(
        AuditEntry.action == LABEL_CORRECTED, AuditEntry.at > last.created_at, AuditEntry.subject.in_(included)
    )
    return session.scalar(changed) or 0


def last_snapshot(session: Session, *conditions: ColumnElement[bool]) -> Snapshot | None:
    """Return the newest snapshot that meets the conditions."""
    return session.scalar(select(Snapshot).where(*conditions).order_by(Snapshot.created_at.desc()).limit(1))


def nested_counts(rows: Iterable[tuple[K, str, int]]) -> dict[K, dict[str, int]]:
    """Turn rows (outer key, inner key, count) into a dictionary of dictionaries."""
    result: dict[K, dict[str, int]] = {}
    for outer, inner, count in rows:
        result.setdefault(outer, {})[inner] = count
    return result
