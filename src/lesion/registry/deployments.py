"""The ledger of champions: each row records who made which version the champion, when and why.

Functions that take a session join the caller's transaction. A ``history`` is the whole ledger, the oldest row first.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.core.errors import ConflictError, InvalidValueError, NotFoundError
from lesion.database.audit import record
from lesion.database.tables import Deployment, ModelVersion

FIRST, PROMOTE, ROLLBACK, REFUSED = "first", "promote", "rollback", "refused"
MAX_REASON = 2000  # characters


class RegistryError(ConflictError):
    """A change of champion that the registry refuses; the ``code`` names the reason."""

    default_code = "registry_refused"


class UnknownVersionError(NotFoundError, RegistryError):
    """No model is registered under this version."""

    default_code = "model_unknown"


class ChampionChangedError(RegistryError):
    """A decision about a champion that is no longer the champion."""

    default_code = "champion_changed"


class InvalidReasonError(InvalidValueError, RegistryError):
    """A change of champion without a reason, or with one that is too long."""

    default_code = "reason_missing"


def last_row(session: Session) -> Deployment | None:
    """Return the row of the champion; None if no model was deployed yet."""
    return session.scalar(select(Deployment).order_by(Deployment.id.desc()).limit(1))


def champion_row(session: Session, expected: int | None = None) -> Deployment:
    """Return the row of the champion; without one, raise a RegistryError (``ledger_empty``).

    ``expected`` is the id of the row that a decision was made against; another champion is a ChampionChangedError.
    """
    last = last_row(session)
    if last is None:
        raise RegistryError(
            "No model was deployed yet. Import the run of a first model: lesion models import RUN.",
            code="ledger_empty",
        )
    if expected is not None and last.id != expected:
        raise ChampionChangedError(
            f"The champion changed meanwhile: deployment {last.id} ({last.version}) followed deployment {expected}. "
            "Look at the new champion and decide again."
        )
    return last


def all_rows(session: Session, last: Deployment | None = None) -> Sequence[Deployment]:
    """Return the ledger, the oldest row first, up to ``last``: another row may have followed it since."""
    rows = select(Deployment).order_by(Deployment.id)
    return session.scalars(rows if last is None else rows.where(Deployment.id <= last.id)).all()


def get_version(session: Session, version: str) -> ModelVersion:
    """Return a registered version, or raise an UnknownVersionError."""
    model = session.get(ModelVersion, version)
    if model is None:
        raise UnknownVersionError(
            f"There is no version {version[:80]!r}. GET /models or lesion models list shows the versions."
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
    """Write the row that follows ``last``, and an entry in the audit log.

    Raises:
        InvalidReasonError: The reason is empty or too long.
        IntegrityError: Another row follows ``last`` already.
    """
    reason = checked_reason(reason)
    row = Deployment(
        follows=last.id if last else 0, version=version, action=action, actor=actor, reason=reason, job_id=job_id
    )
    session.add(row)
    session.flush()
    before = last.version if last else None
    record(session, actor, f"champion.{action}", version, deployment=row.id, before=before, reason=reason)
    return row


def checked_reason(reason: str) -> str:
    """Return a reason without spaces around it; one that is empty or too long is an InvalidReasonError."""
    reason = reason.strip()
    if not 0 < len(reason) <= MAX_REASON:
        raise InvalidReasonError(
            f"A change of champion or of the change plan needs a reason of 1 to {MAX_REASON} characters; this reason "
            f"has {len(reason)}."
        )
    return reason


def check_classes(session: Session, version: str, champion: str) -> None:
    """Refuse a version whose classes, or their order, differ from the champion's (``classes_differ``)."""
    ours, theirs = (get_version(session, name).facts["classes"] for name in (version, champion))
    if ours != theirs:
        raise RegistryError(
            f"{version} has the classes {', '.join(ours)}, but the champion has {', '.join(theirs)}. "
            "Serve a model with other classes from a separate storage.",
            code="classes_differ",
        )


def rollback_line(history: Sequence[Deployment]) -> list[str]:
    """Return the versions that rollbacks return to one after the other, the champion last.

    A rollback removes the versions after its target, so that a second rollback returns to an older version instead of
    a newer one. A refused version is removed wherever it is; promoting it again adds it again.
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
    """Return the version that a rollback returns to; None if there is none."""
    versions = rollback_line(history)
    return versions[-2] if len(versions) > 1 else None


def fallback(history: Sequence[Deployment]) -> str | None:
    """Return the version to serve if the champion's bundle does not load; None if there is none.

    It is the last champion before that was not refused since, which the servers still run.
    """
    refused = {history[-1].version}
    for index, row in reversed([*enumerate(history)]):
        if row.version not in refused:
            return row.version
        if row.action == REFUSED:
            refused.add(history[index - 1].version)
    return None
