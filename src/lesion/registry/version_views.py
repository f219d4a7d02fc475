"""Rows of the database as JSON, the same over HTTP and on the command line."""

from datetime import datetime
from typing import Any, TypedDict, cast

from lesion.database.tables import DELETED, AuditEntry, Base, Deployment, Image, ModelVersion

_HEADLINES = ("test/acc", "test/f1_macro", "test/ece")


class DeploymentView(TypedDict):
    """A row of the ledger of champions."""

    id: int
    version: str
    action: str
    actor: str
    reason: str
    job_id: str | None
    created_at: str


class ModelSummary(TypedDict):
    """The main facts of a version."""

    version: str
    name: str
    champion: bool
    parent: str | None
    snapshot_id: str | None
    job_id: str | None
    metrics: dict[str, Any]
    created_at: str


class ModelView(ModelSummary, total=False):
    """A version with the facts of its bundle that name no path of the training machine and no image.

    The bundle was made at ``created``, and registered at ``created_at``.
    """

    created: str
    classes: list[str]
    preprocessing: dict[str, Any]
    model: dict[str, Any]
    calibration: dict[str, Any]
    domain_trial: dict[str, Any] | None
    data: dict[str, Any] | None
    lineage: dict[str, Any] | None
    files: dict[str, Any]


class ImageView(TypedDict):
    """A row of the catalogue without its thumbnail."""

    sha256: str
    label: str
    status: str
    reason_code: str
    reason: str
    doubt: float | None
    split: str
    generation: int | None
    group_key: str
    patient: str
    source: str
    uploader: str
    width: int
    height: int
    format: str
    bytes: int
    created_at: str
    changed_at: str


class DecisionView(TypedDict):
    """The newest decision about an image of the quarantine; ``action`` is ``released``, ``dropped`` or ``undone``."""

    id: int
    action: str
    actor: str
    at: str


class DecidedImageView(ImageView):
    """A row of the catalogue, and the newest decision about it, if there is one."""

    decision: DecisionView | None
    undoable: bool


def deployment_view(row: Deployment) -> DeploymentView:
    """Return a row of the ledger."""
    return cast(DeploymentView, _columns(row, DeploymentView))


def model_summary(row: ModelVersion, champion: Deployment | None) -> ModelSummary:
    """Return the main facts of a version, and whether it is the champion."""
    metrics = row.facts.get("metrics", {})
    return {
        "version": row.version,
        "name": row.name,
        "champion": champion is not None and champion.version == row.version,
        "parent": row.parent,
        "snapshot_id": row.snapshot_id,
        "job_id": row.job_id,
        "metrics": {name: metrics[name] for name in _HEADLINES if name in metrics},
        "created_at": row.created_at.isoformat(),
    }


def model_view(row: ModelVersion, champion: Deployment | None) -> ModelView:
    """Return a version with the facts of its bundle."""
    names = ["metrics", *(name for name in ModelView.__annotations__ if name not in ModelSummary.__annotations__)]
    facts = {name: row.facts[name] for name in names if name in row.facts}
    return cast(ModelView, model_summary(row, champion) | facts)


def image_view(row: Image) -> ImageView:
    """Return an image's row without its thumbnail."""
    return cast(ImageView, _columns(row, ImageView))


def decided_image_view(row: Image, decision: AuditEntry | None) -> DecidedImageView:
    """Return an image's row with the newest decision about it."""
    view, undoable = None, False
    if decision is not None:
        action = decision.action.removeprefix("image.")
        view = DecisionView(id=decision.id, action=action, actor=decision.actor, at=decision.at.isoformat())
        undoable = action != "undone" and row.status != DELETED
    return DecidedImageView(**image_view(row), decision=view, undoable=undoable)


def _columns(row: Base, view: type) -> dict[str, Any]:
    """Return the columns that a view lists; times become ISO 8601 texts."""
    values = {name: getattr(row, name) for name in view.__annotations__}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
