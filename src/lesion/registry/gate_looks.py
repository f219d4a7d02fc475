"""Earlier decisions of the gate, from the database: looks, promotions, and the best model so far for each class."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.database.tables import Deployment, GateLook, Job
from lesion.promotion.gate_levels import RecordedLook


def recorded_looks(session: Session) -> list[RecordedLook]:
    """Return every look at the gate set in the order in which they were recorded, those of all generations."""
    looks = select(GateLook.generation, GateLook.alpha, Deployment.id).outerjoin(
        Deployment, Deployment.job_id == GateLook.job_id
    )
    rows = session.execute(looks.order_by(GateLook.id))
    return [RecordedLook(generation, alpha, deployment is not None) for generation, alpha, deployment in rows]


def deciding_since(looks: Sequence[RecordedLook], generations: Sequence[int]) -> int:
    """Return the first of the ``generations`` on which no challenger was promoted yet; the newest one at the latest.

    It and all later ones together prove a challenger better: the champion was not chosen on their images.
    """
    last_promotion = max((look.generation for look in looks if look.promoted), default=0)
    return min((number for number in generations if number > last_promotion), default=max(generations))


def best_versions(session: Session) -> dict[str, str]:
    """Return the version of the best model so far for each class in which one was proved better than its predecessor.

    For the other classes it is the first champion, :func:`first_champion`.
    """
    best: dict[str, str] = {}
    promotions = select(Deployment.version, Job.verdict).join(Job, Job.id == Deployment.job_id).order_by(Deployment.id)
    for version, verdict in session.execute(promotions):
        best |= dict.fromkeys((verdict or {}).get("improved", ()), version)
    return best


def first_champion(session: Session) -> str | None:
    """Return the version that was deployed first; None if none was."""
    return session.scalar(select(Deployment.version).order_by(Deployment.id).limit(1))
