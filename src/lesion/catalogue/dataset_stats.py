"""What the catalogue's images look like, in numbers small enough to be drawn."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import counts
from lesion.database.audit import UPLOAD_REJECTED
from lesion.database.tables import ACCEPTED, DELETED, EXCLUDED, GATE, QUARANTINED, TRAINING, AuditEntry, Image
from lesion.imaging.preprocessing import Preprocessing
from lesion.intake.rules import REJECTED

RESOLUTIONS = 50
SOURCES = ("upload", "feedback")
_SPLITS = (*TRAINING, GATE, EXCLUDED)


@dataclass(frozen=True, slots=True)
class ClassImages:
    """The images of a class: how many, which share of all, and how many in each split."""

    label: str
    images: int
    share: float
    splits: dict[str, int]


@dataclass(frozen=True, slots=True)
class Brightness:
    """The mean grey values (0 to 255) of a class's images: the least, the quartiles, the greatest, and their mean."""

    label: str
    images: int
    low: float
    q1: float
    median: float
    q3: float
    high: float
    mean: float


@dataclass(frozen=True, slots=True)
class Resolution:
    """How many images have a size in pixels."""

    width: int
    height: int
    images: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of two or more near-duplicates or images of one patient: how many, and their images in all and by class.

    ``largest`` is how many images the largest group has.
    """

    groups: int
    images: int
    largest: int
    classes: dict[str, int]


@dataclass(frozen=True, slots=True)
class UploadDay:
    """What became of the files that were uploaded on one day (UTC); those deleted since are not among them."""

    day: str
    accepted: int
    quarantined: int
    rejected: int


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """What the catalogue holds; everything but ``statuses`` and ``uploads`` is of accepted images alone.

    ``enlarged`` counts those smaller than what the model sees, before any dark margins are cut off. ``leakage`` says
    how many test images of the split that came with the first model's data have a near-duplicate among its training
    images; null if no split came with it, or if it is not known (then ``leakage_known`` is false).
    """

    images: int
    statuses: dict[str, int]
    classes: list[ClassImages]
    brightness: list[Brightness]
    resolutions: list[Resolution]
    other_resolutions: int
    enlarged: int
    duplicates: Duplicates
    leakage: dict[str, Any] | None
    leakage_known: bool
    uploads: list[UploadDay]
    formats: dict[str, int]


def dataset_stats(
    session: Session,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    leakage: Mapping[str, Any] | None = None,
    *,
    leakage_known: bool = False,
) -> DatasetStats:
    """Aggregate the catalogue.

    Args:
        session: The caller's transaction.
        classes: The champion's, in their order.
        preprocessing: The champion's.
        leakage: What is known of the split that came with the first model's data; None if none came with it.
        leakage_known: Whether that is known at all.
    """
    held = counts(session)
    images, labels = held["status"][ACCEPTED], held["labels"]
    resolutions = _resolutions(session)
    return DatasetStats(
        images=images,
        statuses=held["status"],
        classes=[_class_images(label, labels.get(label, {}), images) for label in classes],
        brightness=_brightness(session, classes),
        resolutions=resolutions,
        other_resolutions=images - sum(row.images for row in resolutions),
        enlarged=_enlarged(session, preprocessing),
        duplicates=_duplicates(session),
        leakage=dict(leakage) if leakage else None,
        leakage_known=leakage_known,
        uploads=_uploads(session),
        formats=_formats(session),
    )


def _class_images(label: str, splits: Mapping[str, int], total: int) -> ClassImages:
    images = sum(splits.values())
    share = images / total if total else 0.0
    return ClassImages(label, images, share, {split: splits.get(split, 0) for split in _SPLITS})


def _brightness(session: Session, classes: Sequence[str]) -> list[Brightness]:
    """One row a class that has images."""
    values = defaultdict[str, list[float]](list)
    for label, value in session.execute(select(Image.label, Image.brightness).where(_accepted())):
        values[label].append(value)
    rows = []
    for label in classes:
        if found := values.get(label):
            low, q1, median, q3, high = np.quantile(found, (0, 0.25, 0.5, 0.75, 1)).tolist()
            rows.append(Brightness(label, len(found), low, q1, median, q3, high, float(np.mean(found))))
    return rows


def _resolutions(session: Session) -> list[Resolution]:
    """The most frequent sizes, the most frequent first."""
    size = Image.width, Image.height
    rows = select(*size, func.count()).where(_accepted()).group_by(*size)
    found = session.execute(rows.order_by(func.count().desc(), *size).limit(RESOLUTIONS))
    return [Resolution(*row) for row in found]


def _enlarged(session: Session, preprocessing: Preprocessing) -> int:
    narrow, low = Image.width < preprocessing.size, Image.height < preprocessing.size
    # Only padding goes by the longer side; cropping by the shorter one, and stretching by each for itself.
    smaller = and_(narrow, low) if preprocessing.fit == "pad" else or_(narrow, low)
    return session.scalar(select(func.count()).select_from(Image).where(_accepted(), smaller)) or 0


def _duplicates(session: Session) -> Duplicates:
    sizes = select(Image.group_key, func.count().label("images")).where(_accepted())
    several = sizes.group_by(Image.group_key).having(func.count() > 1).subquery()
    totals = select(func.count(), func.sum(several.c.images), func.max(several.c.images)).select_from(several)
    groups, images, largest = session.execute(totals).one()
    members = select(Image.label, func.count()).join(several, several.c.group_key == Image.group_key)
    by_class = session.execute(members.where(_accepted()).group_by(Image.label).order_by(Image.label)).all()
    return Duplicates(groups, int(images or 0), largest or 0, dict(by_class))


def _uploads(session: Session) -> list[UploadDay]:
    """One row a day on which something was uploaded, the earliest first."""
    days = defaultdict[str, Counter[str]](Counter)
    kept = select(Image.created_at, Image.status).where(Image.source.in_(SOURCES), Image.status != DELETED)
    for moment, status in session.execute(kept):
        days[_day(moment)][status] += 1
    refused = select(AuditEntry.at, AuditEntry.detail).where(AuditEntry.action == UPLOAD_REJECTED)
    for moment, detail in session.execute(refused):
        days[_day(moment)][REJECTED] += sum(detail["codes"].values())
    return [UploadDay(day, found[ACCEPTED], found[QUARANTINED], found[REJECTED]) for day, found in sorted(days.items())]


def _formats(session: Session) -> dict[str, int]:
    """Images by file format, the most frequent first."""
    rows = select(Image.format, func.count()).where(_accepted()).group_by(Image.format)
    found = session.execute(rows.order_by(func.count().desc(), Image.format)).all()
    return dict(found)


def _accepted() -> ColumnElement[bool]:
    return Image.status == ACCEPTED


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()
