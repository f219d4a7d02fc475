"""Rows of the registry as people and programs see them: JSON-ready, alike over HTTP and on the command line."""

from typing import Any

from lesion.database.tables import Deployment, Image, ModelVersion

_HEADLINES = ("test/acc", "test/f1_macro", "test/ece")
# These hold no path of the machine that trained, and no image's name.
_FACTS = ("created", "classes", "preprocessing", "model", "calibration", "metrics", "data", "lineage", "files")
_IMAGE = (
    "sha256", "label", "status", "reason_code", "reason", "split", "generation", "group_key", "patient", "source",
    "uploader", "width", "height", "format", "bytes",
)  # fmt: skip


def deployment_view(row: Deployment) -> dict[str, Any]:
    """Return a row of the ledger."""
    view = {name: getattr(row, name) for name in ("id", "version", "action", "actor", "reason", "job_id")}
    return view | {"created_at": row.created_at.isoformat()}


def model_summary(row: ModelVersion, champion: Deployment | None) -> dict[str, Any]:
    """Return a version in a few words, and whether it is the champion."""
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


def model_view(row: ModelVersion, champion: Deployment | None) -> dict[str, Any]:
    """Return a version with the facts of its bundle: it was made when ``created`` says, and registered later."""
    return model_summary(row, champion) | {name: row.facts[name] for name in _FACTS if name in row.facts}


def image_view(row: Image) -> dict[str, Any]:
    """Return an image's row without its picture."""
    view = {name: getattr(row, name) for name in _IMAGE}
    return view | {"created_at": row.created_at.isoformat(), "changed_at": row.changed_at.isoformat()}
