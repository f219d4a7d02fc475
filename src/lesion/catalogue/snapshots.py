"""Snapshots: the data that one model is trained on, as a manifest in the store. For retraining workers, not servers."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import pandas as pd
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.counts import last_snapshot
from lesion.catalogue.images import CatalogueError, frozen_generations, images_to_freeze
from lesion.catalogue.regrouping import regroup, store_regrouping
from lesion.catalogue.snapshot_store import NO_ROOT, add_snapshot, get_snapshot, store_manifest
from lesion.core.errors import DataError
from lesion.core.text import join_names
from lesion.data.manifest import COLUMNS, Manifest
from lesion.database.audit import record
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, EXCLUDED, GATE, Generation, Image, Snapshot, now
from lesion.promotion.comparison import Selection

logger = logging.getLogger(__name__)

_COMPUTED = ("path", "source_split", "group", "duplicate_group")  # a manifest's columns that the table lacks
_COLUMNS = ("id", "generation", "group_key", "thumbnail", *(column for column in COLUMNS if column not in _COMPUTED))


def take_snapshot(
    storage: Storage,
    job_id: str,
    renew_images: int,
    attempt: Callable[[Callable[[], None]], None] = lambda save: save(),
) -> Snapshot:
    """Fix the data of a job: all accepted images; those of the frozen gate generations are the ``test`` split.

    Groups of related images are computed again over the images of all servers, and an image on another side than its
    group is excluded. A second call for the same job returns the same snapshot.

    With ``renew_images`` held-out images or more that came before any in quarantine, the open gate generation is frozen
    with them, and the next one is opened. A split without any image of some class is a DataError (``class_missing``).

    ``attempt`` is called with the function that saves the computed groups, and may call it again after an error.
    """
    with storage.session() as session:
        existing = session.get(Snapshot, job_id)
        if existing is not None:
            return existing
        base = last_snapshot(session)
        if base is None:
            raise CatalogueError(
                "There is no data to train on. First import the run of a first model.", code="catalogue_empty"
            )
        _renew_gate(session, renew_images, job_id)
        columns = [getattr(Image, name) for name in _COLUMNS]
        rows = session.execute(select(*columns).where(Image.status == ACCEPTED).order_by(Image.id)).all()
        frozen = frozen_generations(session)
    table = regroup(pd.DataFrame(rows, columns=list(_COLUMNS)))  # slow: outside of any transaction
    manifest = _manifest(table, frozen, base)

    def save() -> None:
        snapshot = store_manifest(storage, job_id, manifest)
        with storage.session() as session:
            if session.get(Snapshot, job_id) is None:
                store_regrouping(session, table, job_id)
                add_snapshot(session, snapshot, manifest, actor=job_id)

    try:
        attempt(save)
    except IntegrityError:  # another worker took it at the same time
        logger.info("The snapshot of job %s was taken by another worker.", job_id)
    return get_snapshot(storage, job_id)


def _renew_gate(session: Session, renew_images: int, job_id: str) -> None:
    """Freeze what may be frozen of the open generation; its other images join the next one."""
    generation = session.scalar(select(Generation).where(Generation.status == "open").with_for_update())
    if generation is None:
        return
    labels = {sha256: label for sha256, label, _ in images_to_freeze(session, generation.number, renew_images)}
    if not labels:
        return
    generation.status, generation.frozen_at = "frozen", now()
    generation.selection = Selection.MEMBERSHIP_FIRST.value
    session.add(Generation(number=generation.number + 1, status="open"))
    session.flush()
    accepted = select(Image.id, Image.sha256).where(
        Image.status == ACCEPTED, Image.split == GATE, Image.generation == generation.number
    )
    left = [image_id for image_id, sha256 in session.execute(accepted) if sha256 not in labels]
    if left:
        session.execute(update(Image), [{"id": each, "generation": generation.number + 1} for each in left])
    counts = dict(Counter(labels.values()))
    record(session, job_id, "gate.frozen", str(generation.number), labels=counts, moved=len(left))


def _manifest(table: pd.DataFrame, frozen: list[int], base: Snapshot) -> Manifest:
    """Make a manifest of regrouped rows, without the images of the open generation."""
    rows = table[(table["split"] != GATE) | table["generation"].isin(frozen)]
    rows = rows.assign(split=rows["split"].replace(GATE, "test"), path=rows["sha256"].map(image_key), source_split="")
    rows = rows.sort_values("path", ignore_index=True)[list(COLUMNS)]
    facts = base.facts
    manifest = Manifest(facts["name"], NO_ROOT, rows, tuple(facts["classes"]), "grouped", facts["seed"])
    _check_classes(manifest, facts["images"])
    return manifest


def _check_classes(manifest: Manifest, before: Mapping[str, Mapping[str, int]]) -> None:
    for split, labels in before.items():
        present = set(manifest.split(split)["label"])
        missing = [label for label, count in labels.items() if count and label not in present and split != EXCLUDED]
        if missing:
            raise DataError(
                f"The catalogue has no image of {join_names(missing)} left for '{split}': too many were deleted, "
                "excluded or given another label. Upload more images of these classes.",
                code="class_missing",
            )
