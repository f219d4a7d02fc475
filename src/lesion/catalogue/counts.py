"""What the catalogue holds, in numbers."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from lesion.database.tables import (
    ACCEPTED,
    DELETED,
    GATE,
    QUARANTINED,
    TRAINING,
    Generation,
    Image,
    ModelVersion,
    Snapshot,
    SnapshotImage,
)


def counts(session: Session) -> dict[str, Any]:
    """Count images: by status, those accepted by label and split, and those of each gate generation by label."""
    number = func.count()
    statuses = session.execute(select(Image.status, number).group_by(Image.status))
    accepted = select(Image.label, Image.split, number).where(Image.status == ACCEPTED)
    gate = select(Image.generation, Image.label, number).where(Image.status == ACCEPTED, Image.split == GATE)
    held = _nested(session.execute(gate.group_by(Image.generation, Image.label)).all())
    return {
        "status": {ACCEPTED: 0, QUARANTINED: 0, DELETED: 0} | dict(statuses.all()),
        "labels": _nested(session.execute(accepted.group_by(Image.label, Image.split)).all()),
        "generations": [
            {"number": row.number, "status": row.status, "labels": held.get(row.number, {})}
            for row in session.scalars(select(Generation).order_by(Generation.number))
        ],
    }


def new_since(session: Session, snapshot_id: str | None = None) -> dict[str, Any]:
    """Count what the next retraining would add to a snapshot, by default to the last one that made a model.

    What a cancelled or failed retraining had collected is as new as before: nothing has learned from it.

    Returns:
        ``images``: how many accepted images of train, val and calibration the snapshot lacks; ``held_out``: how many
        wait in the open gate generation; ``splits``: both by split and label.
    """
    if snapshot_id is None:
        last = last_snapshot(session, Snapshot.id.in_(select(ModelVersion.snapshot_id)))
        snapshot_id = last.id if last else ""
    known = select(SnapshotImage.sha256).where(SnapshotImage.snapshot_id == snapshot_id)
    fresh = select(Image.split, Image.label, func.count()).where(
        Image.status == ACCEPTED, Image.split.in_((*TRAINING, GATE)), Image.sha256.not_in(known)
    )
    splits = _nested(session.execute(fresh.group_by(Image.split, Image.label)).all())
    totals = {split: sum(labels.values()) for split, labels in splits.items()}
    return {
        "images": sum(totals.get(split, 0) for split in TRAINING),
        "held_out": totals.get(GATE, 0),
        "splits": splits,
    }


def last_snapshot(session: Session, *conditions: ColumnElement[bool]) -> Snapshot | None:
    """Return the newest snapshot, of those that meet the conditions."""
    return session.scalar(select(Snapshot).where(*conditions).order_by(Snapshot.created_at.desc()).limit(1))


def _nested(rows: Iterable[tuple[Any, str, int]]) -> dict[Any, dict[str, int]]:
    result: dict[Any, dict[str, int]] = {}
    for outer, inner, count in rows:
        result.setdefault(outer, {})[inner] = count
    return result
