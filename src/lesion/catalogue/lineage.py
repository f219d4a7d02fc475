"""Lineage: from an image to the versions that used it, and from a version to its images."""

from typing import TypedDict, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import nested_counts
from lesion.database.tables import Image, ModelVersion, SnapshotImage
from lesion.registry.deployments import get_version


class ImageUse(TypedDict):
    """How a version used an image.

    ``split`` is None if the image is not in the version's own data; then ``inherited_from`` is the parent whose
    weights, trained on the image, the version started from.
    """

    version: str
    snapshot_id: str | None
    split: str | None
    inherited_from: str | None


class VersionImage(TypedDict):
    """An image in a version's data."""

    sha256: str
    label: str
    split: str
    status: str


class VersionLineage(TypedDict):
    """The data of a version: image counts by split and label, and one page of images, sorted by hash.

    ``next`` is the ``after`` of the next page; None after the last page.
    """

    version: str
    parent: str | None
    snapshot_id: str | None
    counts: dict[str, dict[str, int]]
    images: list[VersionImage]
    next: str | None


def lineage_of_image(session: Session, sha256: str) -> list[ImageUse]:
    """Return the versions that used an image, the oldest first."""
    rows = select(SnapshotImage.snapshot_id, SnapshotImage.split).where(SnapshotImage.sha256 == sha256)
    splits = dict(session.execute(rows).all())
    trained: set[str] = set()
    uses = []
    columns = (ModelVersion.version, ModelVersion.parent, ModelVersion.snapshot_id)
    for version, parent, snapshot in session.execute(select(*columns).order_by(ModelVersion.created_at)):
        split = splits.get(snapshot) if snapshot else None
        inherited = parent if parent in trained else None
        if split == "train" or inherited:
            trained.add(version)
        if split or inherited:
            uses.append(ImageUse(version=version, snapshot_id=snapshot, split=split, inherited_from=inherited))
    return uses


def lineage_of_version(session: Session, version: str, *, after: str = "", limit: int = 1000) -> VersionLineage:
    """Return the data of a version, or raise an UnknownVersionError; ``after`` is the last hash of the page before."""
    row = get_version(session, version)
    joined = Image.sha256 == SnapshotImage.sha256
    in_snapshot = SnapshotImage.snapshot_id == row.snapshot_id
    number = select(SnapshotImage.split, Image.label, func.count()).join(Image, joined).where(in_snapshot)
    page = select(Image.sha256, Image.label, SnapshotImage.split, Image.status).join(SnapshotImage, joined)
    page = page.where(in_snapshot, Image.sha256 > after).order_by(Image.sha256).limit(limit + 1)
    images = [cast(VersionImage, dict(row)) for row in session.execute(page).mappings()]
    return {
        "version": version,
        "parent": row.parent,
        "snapshot_id": row.snapshot_id,
        "counts": nested_counts(session.execute(number.group_by(SnapshotImage.split, Image.label)).all()),
        "images": images[:limit],
        "next": images[limit - 1]["sha256"] if len(images) > limit else None,
    }
