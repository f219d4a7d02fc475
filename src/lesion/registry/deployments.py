"""The champion ledger: rows that say who made which version serve, when and why; each follows the one before.

Functions that take a session join the caller's transaction.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.core.errors import LesionError
from lesion.database.audit import record
from lesion.database.tables import Deployment, ModelVersion

FIRST, PROMOTE, ROLLBACK, REFUSED = "first", "promote", "rollback", "refused"
MAX_REASON = 2000  # characters


class RegistryError(LesionError):
    """A change of champion that the ledger refuses."""

    default_code = "registry_refused"
    default_status = 409


def last_row(session: Session) -> Deployment | None:
    """Return the row that says what is served; None while no model was deployed."""
    return session.scalar(select(Deployment).order_by(Deployment.id.desc()).limit(1))


def champion_row(session: Session, expected: int | None = None) -> Deployment:
    """Return the row that says what is served.

    Args:
        session: The caller's transaction.
        expected: The id that it must have, where somebody decided against that row.

    Raises:
        RegistryError: No model was deployed yet (``ledger_empty``), or the row is another one (``champion_changed``).
    """
    last = last_row(session)
    if last is None:
        raise RegistryError(
            "No model was deployed yet. Import the run of a first one: python scripts/models.py import RUN.",
            code="ledger_empty",
        )
    if expected is not None and last.id != expected:
        raise changed(f"Deployment {last.id} ({last.version}) came after {expected}.")
    return last


def changed(what: str) -> RegistryError:
    """Return the error of who decided about a champion that is none any more; ``what`` came between."""
    return RegistryError(f"The champion changed meanwhile. {what} Look again and decide anew.", code="champion_changed")


def all_rows(session: Session, last: Deployment | None = None) -> Sequence[Deployment]:
    """Return the ledger, the oldest row first.

    Args:
        session: The caller's transaction.
        last: The row to end with: another one may have followed since it was read.
    """
    rows = select(Deployment).order_by(Deployment.id)
    return session.scalars(rows if last is None else rows.where(Deployment.id <= last.id)).all()


def model_row(session: Session, version: str) -> ModelVersion:
    """Return a registered version.

    Raises:
        RegistryError: There is none (``model_unknown``).
    """
    model = session.get(ModelVersion, version)
    if model is None:
        raise RegistryError(
            f"There is no version {version[:80]!r}. GET /models or scripts/models.py list says which there are.",
            code="model_unknown",
            status=404,
        )
    return model


def append(
    session: Session,
    last: Deployment | None,
    version: str,
    action: str,
    actor: str,
    reason: str,
    job_id: str | None = None,
) -> Deployment:
    """Write the row that follows ``last``, and the audit log's entry.

    Raises:
        RegistryError: There is no reason, or a very long one (``reason_missing``).
        IntegrityError: Another row follows ``last`` already.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= MAX_REASON:
        raise RegistryError(
            f"A change of champion needs a reason of 1 to {MAX_REASON} characters; this one has {len(reason)}.",
            code="reason_missing",
            status=422,
        )
    row = Deployment(
        follows=last.id if last else 0, version=version, action=action, actor=actor, reason=reason, job_id=job_id
    )
    session.add(row)
    session.flush()
    before = last.version if last else None
    record(session, actor, f"champion.{action}", version, deployment=row.id, before=before, reason=reason)
    return row


def check_classes(session: Session, version: str, champion: str) -> None:
    """Refuse a version whose classes are not the champion's, in the same order.

    Raises:
        RegistryError: They differ (``classes_differ``).
    """
    ours, theirs = (model_row(session, each).facts["classes"] for each in (version, champion))
    if ours != theirs:
        raise RegistryError(
            f"{version} has the classes {', '.join(ours)}, but the champion has {', '.join(theirs)}. "
            "Serve a model of other classes from a storage of its own.",
            code="classes_differ",
        )


def line(history: Sequence[Deployment]) -> list[str]:
    """Return the versions that a rollback goes back through, the champion last.

    A rollback takes off the versions that came after its target, so that a second one goes further back instead of
    forth again. A refused version is taken out wherever it stands; promoting it again puts it back.

    Args:
        history: The whole ledger, the oldest row first.
    """
    versions: list[str] = []
    for before, row in zip((None, *history), history, strict=False):
        if row.action == ROLLBACK:
            while versions and versions[-1] != row.version:
                versions.pop()
        elif row.action == REFUSED and before is not None:
            versions = [version for version in versions if version != before.version]
        if not versions or versions[-1] != row.version:
            versions.append(row.version)
    return versions


def previous(history: Sequence[Deployment]) -> str | None:
    """Return the version that a rollback brings back; None when there is none.

    Args:
        history: The whole ledger, the oldest row first.
    """
    versions = line(history)
    return versions[-2] if len(versions) > 1 else None


def fallback(history: Sequence[Deployment]) -> str | None:
    """Return the version to serve when the champion's bundle does not load; None when there is none.

    It is the last one that was served before and was not refused since: what the servers still run.

    Args:
        history: The whole ledger, the oldest row first.
    """
    refused = {history[-1].version}
    for index in range(len(history) - 1, -1, -1):
        row = history[index]
        if row.version not in refused:
            return row.version
        if row.action == REFUSED:
            refused.add(history[index - 1].version)
    return None
