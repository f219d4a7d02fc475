"""The change plan in force: the audit log keeps which plan was adopted, when, by whom and why.

Functions that take a session join the caller's transaction.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.database.audit import PLAN_ADOPTED, record
from lesion.database.tables import AuditEntry
from lesion.promotion.change_plan import ChangePlan, PlanStatement
from lesion.registry.deployments import checked_reason


def adoption_in_force(session: Session) -> AuditEntry | None:
    """Return the newest adoption of a plan; None if none was adopted."""
    adoptions = select(AuditEntry).where(AuditEntry.action == PLAN_ADOPTED)
    return session.scalar(adoptions.order_by(AuditEntry.id.desc()).limit(1))


def plan_in_force(session: Session) -> ChangePlan | None:
    """Return the plan that was adopted last; None if none was."""
    adoption = adoption_in_force(session)
    return None if adoption is None else ChangePlan.from_json(adoption.detail["plan"])


def adopt(session: Session, plan: ChangePlan, actor: str, reason: str) -> None:
    """Put a plan into force. An empty or too long reason is an InvalidReasonError."""
    record(session, actor, PLAN_ADOPTED, plan.sha256, plan=plan.to_json(), reason=checked_reason(reason))


def state_plan(session: Session, plan: ChangePlan, job_id: str) -> PlanStatement:
    """Compare what a retraining followed with the plan in force; the first comparison ever puts its own into force."""
    planned = plan_in_force(session)
    if planned is None:
        adopt(session, plan, job_id, "the plan of the first comparison by the gate")
        planned = plan
    return PlanStatement(planned.sha256, plan.differences(planned))
