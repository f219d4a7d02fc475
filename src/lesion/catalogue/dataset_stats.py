"""Statistics of the catalogue's images, small enough to be drawn as charts."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import count_images
from lesion.database.audit import UPLOAD_REJECTED
from lesion.database.tables import (
    ACCEPTED,
    EXCLUDED,
    GATE,
    QUARANTINED,
    REJECTED,
    REMOVED,
    TRAINING,
    AuditEntry,
    Image,
)
from lesion.imaging.preprocessing import Preprocessing

RESOLUTIONS = 50
SOURCES = ("upload", "feedback")
_SPLITS = (*TRAINING, GATE, EXCLUDED)
_ACCEPTED = Image.status == ACCEPTED


@dataclass(frozen=True, slots=True)
class ClassImages:
    """The number of a class's images, their share of all images, and their number in each split."""

    label: str
    images: int
    share: float
    splits: dict[str, int]


@dataclass(frozen=True, slots=True)
class Brightness:
    """The mean gray values (0 to 255) of a class's images: minimum, quartiles, maximum and mean."""

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
    """The number of images of one size in pixels."""

    width: int
    height: int
    images: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of two or more near-duplicates or images of one patient: their number and their images, also by class.

    ``largest`` is the number of images in the largest group.
    """

    groups: int
    images: int
    largest: int
    classes: dict[str, int]


@dataclass(frozen=True, slots=True)
class UploadDay:
    """The decisions about the files uploaded on one day (UTC), without files that were deleted since."""

    day: str
    accepted: int
    quarantined: int
    rejected: int


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """The content of the catalogue; everything except ``statuses`` and ``uploads`` counts accepted images only.

    ``enlarged`` counts images smaller than the model's input, before dark margins are cropped. ``leakage`` describes
    test images that have a near-duplicate among the training images, in the split that came with the first model's
    data; null if the data came without a split, or if this is unknown (then ``leakage_known`` is false).
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
    """Compute the statistics in the caller's transaction, with the champion's classes and its preprocessing.

    ``leakage`` is that of the split that came with the first model's data; None if the data came without a split.
    """
    counts = count_images(session)
    images, labels = counts["status"][ACCEPTED], counts["labels"]
    resolutions = _resolutions(session)
    return DatasetStats(
        images=images,
        statuses=counts["status"],
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
    """Return one row per class that has images."""
    values = defaultdict[str, list[float]](list)
    for label, value in session.execute(select(Image.label, Image.brightness).where(_ACCEPTED)):
        values[label].append(value)
    rows = []
    for label in classes:
        if levels := values.get(label):
            low, q1, median, q3, high = np.quantile(levels, (0, 0.25, 0.5, 0.75, 1)).tolist()
            rows.append(Brightness(label, len(levels), low, q1, median, q3, high, float(np.mean(levels))))
    return rows


def _resolutions(session: Session) -> list[Resolution]:
    """Return the most frequent sizes, the most frequent first."""
    size = Image.width, Image.height
    sizes = select(*size, func.count()).where(_ACCEPTED).group_by(*size)
    rows = session.execute(sizes.order_by(func.count().desc(), *size).limit(RESOLUTIONS))
    return [Resolution(*row) for row in rows]


def _enlarged(session: Session, preprocessing: Preprocessing) -> int:
    narrow, low = Image.width < preprocessing.size, Image.height < preprocessing.size
    # Padding scales by the longer side, cropping by the shorter one, stretching by each side separately.
    smaller = and_(narrow, low) if preprocessing.fit == "pad" else or_(narrow, low)
    return session.scalar(select(func.count()).select_from(Image).where(_ACCEPTED, smaller)) or 0


def _duplicates(session: Session) -> Duplicates:
    sizes = select(Image.group_key, func.count().label("images")).where(_ACCEPTED)
    several = sizes.group_by(Image.group_key).having(func.count() > 1).subquery()
    totals = select(func.count(), func.sum(several.c.images), func.max(several.c.images)).select_from(several)
    groups, images, largest = session.execute(totals).one()
    members = select(Image.label, func.count()).join(several, several.c.group_key == Image.group_key)
    by_class = session.execute(members.where(_ACCEPTED).group_by(Image.label).order_by(Image.label)).all()
    return Duplicates(groups, int(images or 0), largest or 0, dict(by_class))


def _uploads(session: Session) -> list[UploadDay]:
    """Return one row per day with uploads, the earliest first."""
    days = defaultdict[str, Counter[str]](Counter)
    stored = select(Image.created_at, Image.status).where(Image.source.in_(SOURCES), Image.status.not_in(REMOVED))
    for moment, status in session.execute(stored):
        days[_day(moment)][status] += 1
    rejected = select(AuditEntry.at, AuditEntry.detail).where(AuditEntry.action == UPLOAD_REJECTED)
    for moment, detail in session.execute(rejected):
        days[_day(moment)][REJECTED] += sum(detail["codes"].values())
    return [UploadDay(day, n[ACCEPTED], n[QUARANTINED], n[REJECTED]) for day, n in sorted(days.items())]


def _formats(session: Session) -> dict[str, int]:
    """Count images by file format, the most frequent first."""
    formats = select(Image.format, func.count()).where(_ACCEPTED).group_by(Image.format)
    return dict(session.execute(formats.order_by(func.count().desc(), Image.format)).all())


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()
