"""How long a retraining will take, estimated from the last ones, and what the gate could prove after it."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import count_images, count_unreviewed
from lesion.catalogue.images import frozen_generations, gate_images, images_to_freeze
from lesion.database.storage import Storage
from lesion.database.tables import Generation, Job, SnapshotImage
from lesion.promotion.feasibility import Feasibility, assess
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.summary.verdict_summary import Summary, summarize_feasibility, summarize_without_images
from lesion.registry.deployments import last_row
from lesion.registry.gate_looks import deciding_since, recorded_looks
from lesion.retraining.jobs import DECIDED, JobError

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


def gate_feasibility(session: Session, settings: GateSettings) -> Feasibility | None:
    """Assess what the gate could prove after a retraining that begins now; None without images to compare on.

    An open generation with enough images that the retraining may freeze counts.
    """
    generations = {number: gate_images(session, number) for number in frozen_generations(session)}
    gathering = session.scalar(select(Generation.number).where(Generation.status == "open"))
    if gathering is not None:
        generations[gathering] = images_to_freeze(session, gathering, settings.renew_images)
    generations = {number: images for number, images in generations.items() if images}
    if not generations:
        return None
    looks, newest = recorded_looks(session), max(generations)
    since = deciding_since(looks, list(generations))
    deciding = {number: images for number, images in generations.items() if number >= since}
    images = [image for members in deciding.values() for image in members]
    champion = last_row(session)
    accuracy, improvable = (None, None) if champion is None else _champion_on(session, champion.version, set(deciding))
    groups = len({group for _, _, group in images})
    return assess(len(images), groups, settings.levels.next_level(looks, newest), accuracy, improvable)


def obstacle_to_retraining(session: Session, settings: GateSettings) -> Summary | None:
    """Return why a retraining that begins now could not lead to a promotion, and what to do; None if it could.

    With ``train_in_vain`` nothing is an obstacle.
    """
    if settings.train_in_vain:
        return None
    feasibility = gate_feasibility(session, settings)
    if feasibility is not None and feasibility.possible:
        return None
    return feasibility_summary(session, feasibility)


def feasibility_summary(session: Session, feasibility: Feasibility | None, holdout: float | None = None) -> Summary:
    """Return in words what the gate could prove, and what to do; ``holdout`` is the share of uploads that it gets."""
    unreviewed = count_unreviewed(session)
    if feasibility is None:
        return summarize_without_images(unreviewed)
    return summarize_feasibility(feasibility, unreviewed, holdout)


def check_provable(storage: Storage, settings: GateSettings) -> None:
    """Raise a JobError (``gate_impossible``) if no challenger could be promoted; see ``train_in_vain``."""
    with storage.session() as session:
        obstacle = obstacle_to_retraining(session, settings)
    if obstacle is not None:
        raise JobError(f"Nothing was trained. {obstacle.text}", code="gate_impossible")


def _champion_on(session: Session, version: str, generations: set[int]) -> tuple[float | None, int | None]:
    """Return the champion's accuracy in the last comparison, and, if it was on these generations, its wrong groups."""
    judged = select(Job).where(Job.verdict.is_not(None), (Job.parent == version) | (Job.version == version))
    for job in session.scalars(judged.order_by(Job.finished_at.desc())):
        comparisons: list[dict[str, Any]] = (job.verdict or {}).get("comparisons", [])
        if not comparisons:
            continue
        newest = comparisons[-1]
        if job.version == version:
            return newest["challenger"]["accuracy"], None
        same = set(newest.get("generations", ())) == generations
        return newest["champion"]["accuracy"], newest.get("improvable_groups") if same else None
    return None, None


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
