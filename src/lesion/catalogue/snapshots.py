"""Snapshots: what one model is trained on, as a manifest in the store. For the worker, not for servers."""

import logging
from collections.abc import Mapping

import pandas as pd
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.images import CatalogueError, last_snapshot, record
from lesion.catalogue.import_run import import_manifest as import_manifest
from lesion.catalogue.regrouping import put_right, regrouped
from lesion.catalogue.snapshot_store import NOWHERE, add_snapshot, find_snapshot, store_manifest
from lesion.catalogue.snapshot_store import image_root as image_root
from lesion.catalogue.snapshot_store import materialise as materialise
from lesion.core.errors import DataError
from lesion.data.manifest import COLUMNS, Manifest
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, EXCLUDED, GATE, Generation, Image, Snapshot, now

logger = logging.getLogger(__name__)

_FOUND = ("path", "source_split", "group", "duplicate_group")  # columns of a manifest that are not the catalogue's
_COLUMNS = ("id", "generation", "group_key", "thumbnail", *(column for column in COLUMNS if column not in _FOUND))


def take_snapshot(storage: Storage, job_id: str, renew_images: int) -> Snapshot:
    """Fix what a job trains on and is judged by: all accepted images, and as ``test`` those of every frozen generation.

    Related images are grouped anew, over all that came through whichever server: an image on another side than its
    group is excluded. Called again for the same job, it returns the snapshot that was taken.

    Args:
        storage: The loop's state.
        job_id: The job, and the snapshot's id.
        renew_images: From how many held-out images on the open gate generation is frozen and the next one opened.

    Raises:
        CatalogueError: Nothing was imported yet (``catalogue_empty``).
        DataError: A split has no image of some class any more (``class_missing``).
    """
    with storage.session() as session:
        taken = session.get(Snapshot, job_id)
        if taken is not None:
            return taken
        base = last_snapshot(session)
        if base is None:
            raise CatalogueError("There is no data to train on: import a first model's run.", code="catalogue_empty")
        _renew_gate(session, renew_images, job_id)
        columns = [getattr(Image, name) for name in _COLUMNS]
        rows = session.execute(select(*columns).where(Image.status == ACCEPTED).order_by(Image.id)).all()
        frozen = frozen_generations(session)
    table = regrouped(pd.DataFrame(rows, columns=list(_COLUMNS)))  # takes long: outside of any transaction
    manifest = _manifest(table, frozen, base)
    snapshot = store_manifest(storage, job_id, manifest)
    try:
        with storage.session() as session:
            if session.get(Snapshot, job_id) is None:
                put_right(session, table, job_id)
                add_snapshot(session, snapshot, manifest, actor=job_id)
    except IntegrityError:  # another worker took it at the same time
        logger.info("The snapshot of job %s was taken by another worker.", job_id)
    return find_snapshot(storage, job_id)


def gate_images(session: Session, generation: int) -> list[tuple[str, str, str]]:
    """Return hash, label and group key of a generation's images, in the order they came."""
    columns = select(Image.sha256, Image.label, Image.group_key)
    held = columns.where(Image.status == ACCEPTED, Image.split == GATE, Image.generation == generation)
    return [(sha256, label, group) for sha256, label, group in session.execute(held.order_by(Image.id))]


def frozen_generations(session: Session) -> list[int]:
    """Return the numbers of the gate generations that decide, the newest last."""
    frozen = select(Generation.number).where(Generation.status == "frozen")
    return list(session.scalars(frozen.order_by(Generation.number)))


def _renew_gate(session: Session, renew_images: int, job_id: str) -> None:
    generation = session.scalar(select(Generation).where(Generation.status == "open").with_for_update())
    if generation is None:
        return
    held = select(Image.label, func.count()).where(
        Image.status == ACCEPTED, Image.split == GATE, Image.generation == generation.number
    )
    labels = dict(session.execute(held.group_by(Image.label)).all())
    if sum(labels.values()) < renew_images or len(labels) < 2:
        return
    generation.status, generation.frozen_at = "frozen", now()
    session.add(Generation(number=generation.number + 1, status="open"))
    session.flush()
    record(session, job_id, "gate.frozen", str(generation.number), labels=labels)


def _manifest(table: pd.DataFrame, frozen: list[int], base: Snapshot) -> Manifest:
    """The manifest of regrouped rows: what the open generation holds is left out altogether."""
    kept = table[(table["split"] != GATE) | table["generation"].isin(frozen)]
    kept = kept.assign(split=kept["split"].replace(GATE, "test"), path=kept["sha256"].map(image_key), source_split="")
    kept = kept.sort_values("path", ignore_index=True)[list(COLUMNS)]
    facts = base.facts
    manifest = Manifest(facts["name"], NOWHERE, kept, tuple(facts["classes"]), "grouped", facts["seed"])
    _check_classes(manifest, facts["images"])
    return manifest


def _check_classes(manifest: Manifest, before: Mapping[str, Mapping[str, int]]) -> None:
    for split, labels in before.items():
        left = set(manifest.split(split)["label"])
        missing = [label for label, count in labels.items() if count and label not in left and split != EXCLUDED]
        if missing:
            raise DataError(
                f"The catalogue has no image of {', '.join(missing[:5])} left for '{split}': too many were deleted or "
                "excluded. Upload more images of these classes.",
                code="class_missing",
            )
