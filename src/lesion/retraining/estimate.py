"""How long a retraining will take, judged by the last ones."""

from dataclasses import dataclass
from statistics import median

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import counts
from lesion.database.tables import Job, SnapshotImage

_TRAIN = "train"  # an epoch goes through the images of this split
_LAST = 3  # so many retrainings are looked at: few, since machines, models and data change
_WHOLE = ("promoted", "rejected")  # what ended otherwise did not go all the way


@dataclass(frozen=True)
class Estimate:
    """How long a retraining will take.

    Attributes:
        images: The training images that each epoch goes through.
        seconds: Of the whole retraining; None when nothing is known.
        basis: What that was reckoned from, or why it is not known, in a sentence.
    """

    images: int
    seconds: float | None
    basis: str


def estimate(session: Session, epochs: int) -> Estimate:
    """Estimate a retraining that would begin now: so long an image and epoch, and the rest as before.

    Args:
        session: Of the catalogue.
        epochs: How many it would train.
    """
    images = sum(splits.get(_TRAIN, 0) for splits in counts(session)["labels"].values())
    measured = _measured(session)
    if not measured:
        return Estimate(
            images, None, "No retraining was timed to its end yet, so nobody knows how long one takes here."
        )
    pace, rest = (median(values) for values in zip(*measured, strict=True))
    which = "the last retraining" if len(measured) == 1 else f"the last {len(measured)} retrainings"
    basis = (
        f"Measured on {which}: {1000 * pace:,.1f} ms an image and epoch, and {rest:.0f} s for the rest, such as the "
        "evaluation and the comparison with the champion."
    )
    return Estimate(images, round(pace * images * epochs + rest, 1), basis)


def _measured(session: Session) -> list[tuple[float, float]]:
    """Return, of each of the last retrainings, the seconds an image and epoch and the seconds of all else."""
    ended = select(Job).where(Job.state.in_(_WHOLE)).order_by(Job.finished_at.desc()).limit(_LAST)
    found = []
    for job in session.scalars(ended):
        epochs = [row.get("seconds") for row in job.metrics]  # those of an earlier version do not say it
        images = _images_of(session, job)
        if not images or not epochs or None in epochs or job.started_at is None or job.finished_at is None:
            continue
        training = sum(epochs)
        total = (job.finished_at - job.started_at).total_seconds()
        found.append((training / (images * len(epochs)), max(0.0, total - training)))
    return found


def _images_of(session: Session, job: Job) -> int:
    number = select(func.count()).where(SnapshotImage.snapshot_id == job.snapshot_id, SnapshotImage.split == _TRAIN)
    return session.scalar(number) or 0
