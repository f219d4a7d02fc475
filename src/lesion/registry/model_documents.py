"""The documents of a version: its model card, a data sheet and a checklist, filled in from what Lesion knows.

The data sheet follows "Datasheets for Datasets" (Gebru et al., 2021), the checklist the subjects of CLAIM (Mongan, Moy
and Kahn, 2020; update of 2024). What Lesion does not know is marked as not known, for persons to complete.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from lesion.core.files import write_atomically
from lesion.database.audit import LABEL_CORRECTED
from lesion.database.tables import DELETED, AuditEntry, Image, ModelVersion, SnapshotImage
from lesion.evaluation.rendering import literal_markdown, load_template
from lesion.registry.deployments import get_version
from lesion.registry.registry import Registry

CARD, DATA_SHEET, CHECKLIST = "MODEL_CARD.md", "DATA_SHEET.md", "CLAIM_CHECKLIST.md"
_SHOWN = 10  # devices and formats that are listed


@dataclass(frozen=True)
class VersionImages:
    """What is known of the images of a version's snapshot."""

    splits: Mapping[str, Mapping[str, int]]  # number of images by split and label
    images: int
    groups: int  # of related images, such as those of a patient
    patients: int  # pseudonyms
    without_patient: int  # images that name none
    devices: Mapping[str, int]  # number of images by device, the most frequent first; "" where none is named
    formats: Mapping[str, int]
    senders: int
    smallest_side: int | None  # in pixels
    largest_side: int | None
    first: datetime | None  # when they arrived
    last: datetime | None
    corrected: int  # images whose label a person changed
    deleted: int  # images whose pixels were deleted since


def write_documents(registry: Registry, version: str, folder: Path) -> list[Path]:
    """Write the documents of a version into a folder, and return their paths; what stands there is replaced.

    An UnknownVersionError tells that there is no such version, a StoreError that its bundle cannot be had.
    """
    card = (registry.folder(version) / CARD).read_text("utf-8")
    with registry.storage.reading() as session:
        row = get_version(session, version)
        known = {"version": version, "facts": row.facts, "images": version_images(session, row), "row": row}
        known["retrained"] = list(session.scalars(select(ModelVersion.version).where(ModelVersion.parent == version)))
    folder.mkdir(parents=True, exist_ok=True)
    documents = {CARD: card} | {name: _render(name, known) for name in (DATA_SHEET, CHECKLIST)}
    for name, text in documents.items():
        write_atomically(folder / name, text)
    return [folder / name for name in documents]


def version_images(session: Session, row: ModelVersion) -> VersionImages:
    """Gather what is known of the images that a version was trained, calibrated and tested on."""
    used = select(SnapshotImage.sha256).where(SnapshotImage.snapshot_id == row.snapshot_id)
    of_version = Image.sha256.in_(used)
    by_split = select(SnapshotImage.split, Image.label, func.count()).join(Image, Image.sha256 == SnapshotImage.sha256)
    by_split = by_split.where(SnapshotImage.snapshot_id == row.snapshot_id)
    splits: dict[str, dict[str, int]] = {}
    for split, label, count in session.execute(by_split.group_by(SnapshotImage.split, Image.label)):
        splits.setdefault(split, {})[label] = count
    named = func.nullif(Image.patient, "")
    numbers = session.execute(
        select(
            func.count(), func.count(Image.group_key.distinct()), func.count(named.distinct()), func.count(named),
            func.count(Image.uploader.distinct()), func.min(Image.width), func.min(Image.height),
            func.max(Image.width), func.max(Image.height), func.min(Image.created_at), func.max(Image.created_at),
        ).where(of_version)
    ).one()  # fmt: skip
    images, groups, patients, with_patient, senders, *sides, first, last = numbers
    corrected = select(func.count(AuditEntry.subject.distinct())).where(
        AuditEntry.action == LABEL_CORRECTED, AuditEntry.subject.in_(used)
    )
    deleted = select(func.count()).select_from(Image).where(of_version, Image.status == DELETED)
    return VersionImages(
        splits=splits,
        images=images,
        groups=groups,
        patients=patients,
        without_patient=images - with_patient,
        devices=_counts(session, Image.device, of_version),
        formats=_counts(session, Image.format, of_version),
        senders=senders,
        smallest_side=min(sides[:2]) if images else None,
        largest_side=max(sides[2:]) if images else None,
        first=first,
        last=last,
        corrected=session.scalar(corrected) or 0,
        deleted=session.scalar(deleted) or 0,
    )


def _counts(session: Session, column: InstrumentedAttribute[str], condition: ColumnElement[bool]) -> dict[str, int]:
    rows = select(column, func.count()).where(condition).group_by(column).order_by(func.count().desc(), column)
    return {row[0]: row[1] for row in session.execute(rows.limit(_SHOWN))}


def _render(name: str, known: Mapping[str, Any]) -> str:
    template = load_template(f"{name}.j2", "lesion.registry", autoescape=False, literal=literal_markdown)
    return template.render(**known, metrics=known["facts"].get("metrics", {}), not_known="*not known*")
