"""How long a retraining will take, estimated from the last ones."""

from dataclasses import dataclass
from statistics import median

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import count_images
from lesion.database.tables import Job, SnapshotImage
from lesion.retraining.jobs import DECIDED

_TRAIN = "train"  # an epoch goes through the images of this split
_MEASURED_JOBS = 3  # few, since machines, models and data change


@dataclass(frozen=True)
class Estimate:
    """How long a retraining will take."""

    images: int  # the training images that each epoch goes through
    seconds: float | None  # of the whole retraining; None when nothing is known
    basis: str  # what the estimate is based on, or why there is no estimate, in a sentence


def estimate(session: Session, epochs: int) -> Estimate:
    """Estimate a retraining that would begin now: a time per image and epoch, and a time for everything else."""
    images = sum(splits.get(_TRAIN, 0) for splits in count_images(session)["labels"].values())
    measurements = _measurements(session)
    if not measurements:
        return Estimate(images, None, "No retraining has run to its end yet, so there is nothing to estimate from.")
    pace, rest = (median(values) for values in zip(*measurements, strict=True))
    jobs = "the last retraining" if len(measurements) == 1 else f"the last {len(measurements)} retrainings"
    basis = (
        f"Measured on {jobs}: {1000 * pace:,.1f} ms per image and epoch, and {rest:.0f} s for the rest, such as the "
        "evaluation and the comparison with the champion."
    )
    return Estimate(images, round(pace * images * epochs + rest, 1), basis)


def _measurements(session: Session) -> list[tuple[float, float]]:
    """Return, for each of the last retrainings, the seconds per image and epoch and the seconds of everything else."""
    ended = select(Job).where(Job.state.in_([state.value for state in DECIDED]))
    measurements = []
    for job in session.scalars(ended.order_by(Job.finished_at.desc()).limit(_MEASURED_JOBS)):
        epochs = [row.get("seconds") for row in job.metrics]  # rows of an earlier version lack it
        trained = SnapshotImage.snapshot_id == job.snapshot_id, SnapshotImage.split == _TRAIN
        images = session.scalar(select(func.count()).where(*trained))
        if not images or not epochs or None in epochs or job.started_at is None or job.finished_at is None:
            continue
        training = sum(epochs)
        total = (job.finished_at - job.started_at).total_seconds()
        measurements.append((training / (images * len(epochs)), max(0.0, total - training)))
    return measurements
