"""Takes uploaded images in: judges each against the catalogue, and keeps those that may stay."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from lesion.catalogue.images import add_image, open_generation
from lesion.core.errors import LesionError
from lesion.data.inspection import ImageRecord
from lesion.database.audit import UPLOAD_REJECTED, record
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, Generation, Image
from lesion.deduplication.duplicate_index import DuplicateIndex
from lesion.deduplication.duplicates import SIDE, Descriptors
from lesion.intake.rules import REJECTED, Decision, ExistingImage, IntakeSettings, ModelOpinion, decide

# Rows are numbered when they are inserted and seen when they are committed, which may be in another order; so the last
# ones are looked through again.
_OVERLAP = 500
_PAGE = 2000
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an uploaded image; ``dataclasses.asdict`` of it is JSON-ready.

    Attributes:
        status: ``accepted``, ``quarantined`` or ``rejected``.
        code: Why, for programs; empty for an image that is simply accepted.
        reason: Why, for people.
        sha256: The hash of its file.
        label: The label it came with.
    """

    status: str
    code: str
    reason: str
    sha256: str
    label: str

    def to_dict(self) -> dict[str, Any]:
        """Return the members, JSON-ready."""
        return asdict(self)


class Intake:
    """Judges and keeps images; safe to use from several threads, processes and machines at once.

    Two servers that take two copies of one picture in the same moment both keep theirs; the next snapshot sees to it.

    Args:
        storage: The catalogue and the files.
        classes: The classes there are.
        settings: The thresholds and shares.
    """

    def __init__(self, storage: Storage, classes: Sequence[str], settings: IntakeSettings) -> None:
        self._storage = storage
        self._classes = tuple(classes)
        self._settings = settings
        self._index = DuplicateIndex()
        self._indexed: set[str] = set()
        self._last = 0
        self._lock = threading.Lock()

    def take(
        self,
        examined: ImageRecord,
        data: bytes,
        label: str,
        opinion: ModelOpinion | None,
        *,
        source: str,
        uploader: str,
        patient: str = "",
    ) -> Outcome:
        """Judge one image and keep it, unless it is rejected. The same image again changes nothing.

        Args:
            examined: What :func:`lesion.intake.rules.examine` made of ``data``.
            data: The file.
            label: What the uploader calls it.
            opinion: What the champion says of it; None where nobody can be asked.
            source: ``upload`` or ``feedback``.
            uploader: The key that brought it.
            patient: Images with the same non-empty name stand on one side of the split.

        Raises:
            StoreError: The file cannot be stored; nothing was kept.
            CatalogueError: Nothing was imported yet (``catalogue_empty``).
        """
        if not self._last:
            self.refresh()
        for _ in range(_TRIES):
            with self._storage.session() as session:
                known = self._known(session, examined, patient)
                judgement = decide(
                    examined, label, opinion, known, self._settings, classes=self._classes, uploader=uploader
                )
                if judgement.status == REJECTED or not judgement.split:
                    return _outcome(judgement, examined, label)
                open_generation(session)  # nothing can be held out before the first model's data is there
                self._storage.store.put(image_key(examined.sha256), data)
                if add_image(session, _row(examined, label, judgement, source, uploader, patient)):
                    return _outcome(judgement, examined, label)
        raise LesionError(
            "Another server takes the same image at this moment. Send it again.", code="image_contested", status=409
        )

    def note_rejected(self, codes: Mapping[str, int], *, source: str, uploader: str) -> None:
        """Write down how many files of one request were rejected, by code; they leave no other trace."""
        with self._storage.session() as session:
            record(session, uploader, UPLOAD_REJECTED, source, codes=dict(codes))

    def refresh(self) -> None:
        """Read what is new in the catalogue, so that the next image need not wait for it."""
        while True:
            with self._storage.session() as session:
                rows = self._fresh(session)
            if not rows:
                return
            self._learn(rows)  # takes long the first time: outside of the transaction

    def _known(self, session: Session, examined: ImageRecord, patient: str) -> list[ExistingImage]:
        """The catalogue's images that have to do with one: by file, pixels, picture or patient."""
        while rows := self._fresh(session):
            self._learn(rows)
        with self._lock:
            near = self._index.query(examined.descriptor)
        same = [Image.sha256 == examined.sha256, Image.pixel_sha256 == examined.pixel_sha256]
        wanted = or_(*same, Image.sha256.in_(near), *([Image.patient == patient] if patient else []))
        statement = select(Image, Generation.status).outerjoin(Generation, Image.generation == Generation.number)
        found = session.execute(statement.where(wanted).order_by(Image.id))
        return [_known(row, generation, examined, row.sha256 in near) for row, generation in found]

    def _fresh(self, session: Session) -> list[tuple[int, str, bytes]]:
        """Id, hash and thumbnail of the next images that the index lacks."""
        after = Image.id > self._last - _OVERLAP
        recent = select(Image.id, Image.sha256).where(after, Image.status != DELETED).order_by(Image.id)
        lacking = [number for number, sha256 in session.execute(recent) if sha256 not in self._indexed]
        columns = select(Image.id, Image.sha256, Image.thumbnail)
        rows = session.execute(columns.where(Image.id.in_(lacking[:_PAGE]), Image.status != DELETED))
        return [(number, sha256, thumbnail) for number, sha256, thumbnail in rows]

    def _learn(self, rows: list[tuple[int, str, bytes]]) -> None:
        with self._lock:
            new = [row for row in rows if row[1] not in self._indexed]  # another thread may have been here
            thumbnails = np.frombuffer(b"".join(thumbnail for *_, thumbnail in new), np.uint8)
            names = [sha256 for _, sha256, _ in new]
            self._index.add(Descriptors(thumbnails.reshape(-1, SIDE, SIDE)), names)
            self._indexed.update(names)
            self._last = max(self._last, *(number for number, *_ in rows))


def _known(row: Image, generation: str | None, examined: ImageRecord, near: bool) -> ExistingImage:
    return ExistingImage(
        sha256=row.sha256,
        pixel_sha256=row.pixel_sha256,
        label=row.label,
        status=row.status,
        split=row.split,
        frozen=generation == "frozen",
        group_key=row.group_key,
        uploader=row.uploader,
        near=near or row.pixel_sha256 == examined.pixel_sha256,
    )


def _row(examined: ImageRecord, label: str, judgement: Decision, source: str, uploader: str, patient: str) -> Image:
    facts = {name: getattr(examined, name) for name in ImageRecord.__slots__ if name != "descriptor"}
    return Image(
        **facts,
        label=label,
        status=judgement.status,
        reason_code=judgement.code,
        reason=judgement.reason,
        split=judgement.split,
        group_key=judgement.group_key,
        patient=patient,
        source=source,
        uploader=uploader,
        thumbnail=examined.descriptor.thumbnail.tobytes(),
    )


def _outcome(judgement: Decision, examined: ImageRecord, label: str) -> Outcome:
    return Outcome(judgement.status, judgement.code, judgement.reason, examined.sha256, label)
