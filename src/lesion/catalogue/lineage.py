"""From an image to the versions that saw it, and from a version to its images."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lesion.database.tables import Image, ModelVersion, SnapshotImage
from lesion.registry.deployments import model_row


def lineage_of_image(session: Session, sha256: str) -> list[dict[str, Any]]:
    """List the versions that had seen an image, the oldest first.

    Returns:
        For each its ``version``, ``snapshot_id``, the ``split`` in which it had the image (None if not in its own data)
        and ``inherited_from``: the parent whose weights, trained on the image, it started from.
    """
    held = select(SnapshotImage.snapshot_id, SnapshotImage.split).where(SnapshotImage.sha256 == sha256)
    splits = dict(session.execute(held).all())
    trained: set[str] = set()
    seen = []
    columns = (ModelVersion.version, ModelVersion.parent, ModelVersion.snapshot_id)
    for version, parent, snapshot in session.execute(select(*columns).order_by(ModelVersion.created_at)):
        split = splits.get(snapshot) if snapshot else None
        inherited = parent if parent in trained else None
        if split == "train" or inherited:
            trained.add(version)
        if split or inherited:
            seen.append({"version": version, "snapshot_id": snapshot, "split": split, "inherited_from": inherited})
    return seen


def lineage_of_version(session: Session, version: str, *, after: str = "", limit: int = 1000) -> dict[str, Any]:
    """Say what data a version is made from.

    Args:
        session: The transaction.
        version: The version.
        after: The last hash of the page before.
        limit: How many images a page has.

    Returns:
        ``version``, ``parent``, ``snapshot_id``, ``counts`` by split and label, a page of ``images`` (sha256, label,
        split, status), sorted by hash, and ``next``: what to give as ``after`` for the next page, or None.

    Raises:
        RegistryError: There is no such version (``model_unknown``).
    """
    row = model_row(session, version)
    of_snapshot = SnapshotImage.snapshot_id == row.snapshot_id
    number = select(SnapshotImage.split, Image.label, func.count()).join(Image, Image.sha256 == SnapshotImage.sha256)
    counts: dict[str, dict[str, int]] = {}
    for split, label, count in session.execute(number.where(of_snapshot).group_by(SnapshotImage.split, Image.label)):
        counts.setdefault(split, {})[label] = count
    page = select(Image.sha256, Image.label, SnapshotImage.split, Image.status)
    page = page.join(SnapshotImage, Image.sha256 == SnapshotImage.sha256).where(of_snapshot, Image.sha256 > after)
    found = [dict(one._mapping) for one in session.execute(page.order_by(Image.sha256).limit(limit + 1))]
    return {
        "version": version,
        "parent": row.parent,
        "snapshot_id": row.snapshot_id,
        "counts": counts,
        "images": found[:limit],
        "next": found[limit - 1]["sha256"] if len(found) > limit else None,
    }
