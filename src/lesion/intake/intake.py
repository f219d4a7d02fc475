"""Judge uploads against the catalogue, and store the images that are accepted or quarantined."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from lesion.catalogue.images import add_image, lock_withdrawn, open_generation
from lesion.catalogue.label_corrections import correct_label
from lesion.core.errors import ConflictError
from lesion.data.inspection import ImageRecord
from lesion.database.audit import UPLOAD_REJECTED, newest_entry, record
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, REMOVED, Generation, Image
from lesion.deduplication.duplicate_index import DuplicateIndex, Found
from lesion.deduplication.pictures import SIDE
from lesion.identity.identity_key import open_pseudonyms
from lesion.intake.rules import Case, IntakeSettings, decide
from lesion.intake.uploads import Decision, RelatedImage, Upload

# Rows get their ids when they are inserted, and become visible when they are committed, perhaps in another order. So
# the last ids are checked again.
_OVERLAP = 500
_PAGE = 2000  # rows per query
_ATTEMPTS = 3


class Intake:
    """Judges and stores uploads; safe to use from several threads, processes and machines at once.

    If two servers receive two copies of a picture at the same moment, both are stored; the next snapshot excludes one
    where necessary. ``classes`` are those of the champion; ``pseudonyms`` are those of the storage.
    """

    def __init__(self, storage: Storage, classes: Sequence[str], settings: IntakeSettings) -> None:
        self._storage = storage
        self._classes = tuple(classes)
        self.settings = settings
        self.pseudonyms = open_pseudonyms(storage)
        self._index = DuplicateIndex()
        self._indexed: set[str] = set()  # hashes
        self._last_id = 0
        self._lock = threading.Lock()

    def process(self, upload: Upload, data: bytes) -> Decision:
        """Judge an upload and store it unless it is rejected. The same upload again changes nothing.

        ``upload`` has the image as :func:`lesion.data.inspection.examine` describes the file ``data``, from which
        :func:`lesion.identity.received_files.deidentify` has taken what identifies a person.

        Raises:
            StoreError: The file cannot be stored; nothing was changed.
            ConflictError: No data was imported yet (``catalogue_empty``), or another server stores the same image now
                (``image_contested``).
        """
        found = self._search(upload)
        for _ in range(_ATTEMPTS):
            with self._storage.session() as session:
                decision = self._decide(session, upload, found)
                for sha256 in decision.corrected:
                    correct_label(session, sha256, upload.uploader, upload.label)
                if not decision.split:
                    return _with_changes(session, upload, decision, decision.corrected)
                open_generation(session)  # refuses uploads before the first model's data is imported
                lock_withdrawn(session, upload.image.sha256)
                self._storage.store.put(image_key(upload.image.sha256), data)
                if add_image(session, _row(upload, decision)):
                    return _with_changes(session, upload, decision, [upload.image.sha256])
        raise ConflictError(
            "Another server is storing the same image at this moment. Send it again.", code="image_contested"
        )

    def judge(self, upload: Upload) -> Decision:
        """Judge an upload as ``process`` would, and store nothing."""
        found = self._search(upload)
        with self._storage.reading() as session:
            return self._decide(session, upload, found)

    def note_rejected(self, codes: Mapping[str, int], *, source: str, uploader: str) -> None:
        """Record the number of rejected files of one request by code; nothing else is stored about them."""
        with self._storage.session() as session:
            record(session, uploader, UPLOAD_REJECTED, source, codes=dict(codes))

    def refresh(self) -> None:
        """Index what is new in the catalogue, so that the next upload need not wait for it."""
        while True:
            with self._storage.reading() as session:
                rows = self._unindexed(session)
            if not rows:
                return
            self._add_to_index(rows)  # slow the first time: outside of the transaction

    def _search(self, upload: Upload) -> Found:
        """Search the images that are indexed already: outside of a transaction, in which other uploads would wait."""
        if not self._last_id:
            self.refresh()
        return self._index.find(upload.image.thumbnail)

    def _decide(self, session: Session, upload: Upload, found: Found) -> Decision:
        related, look_alikes = self._related(session, upload, found)
        return decide(Case(upload, related, self.settings, self._classes, look_alikes))

    def _related(self, session: Session, upload: Upload, earlier: Found) -> tuple[list[RelatedImage], list[Image]]:
        """Return the images with an upload's file, pixels, picture or patient, and those that only look alike.

        ``earlier`` is what was found in the index before the transaction; what was stored since is searched now.
        """
        while rows := self._unindexed(session):
            self._add_to_index(rows)
        image, patient = upload.image, upload.patient
        near = self._index.names(self._index.find(image.thumbnail, earlier))
        conditions = [Image.sha256 == image.sha256, Image.pixel_sha256 == image.pixel_sha256]
        conditions += [Image.sha256.in_(near.copies)]
        conditions += [Image.patient == patient] if patient else []
        conditions += [Image.sent_hash == upload.sent_hash] if upload.sent_hash else []
        statement = select(Image, Generation.status).outerjoin(Generation, Image.generation == Generation.number)
        related = session.execute(statement.where(or_(*conditions)).order_by(Image.id))
        found = [
            RelatedImage(
                row, generation == "frozen", row.sha256 in near.copies or row.pixel_sha256 == image.pixel_sha256
            )
            for row, generation in related
        ]
        alike = select(Image).where(Image.sha256.in_(near.related), Image.status.not_in(REMOVED)).order_by(Image.id)
        return found, list(session.scalars(alike)) if near.related else []

    def _unindexed(self, session: Session) -> list[tuple[int, str, bytes]]:
        """Return id, hash and thumbnail of the next images that are not in the index."""
        recent = select(Image.id, Image.sha256).where(Image.id > self._last_id - _OVERLAP, Image.status != DELETED)
        missing = [row.id for row in session.execute(recent.order_by(Image.id)) if row.sha256 not in self._indexed]
        columns = select(Image.id, Image.sha256, Image.thumbnail)
        rows = session.execute(columns.where(Image.id.in_(missing[:_PAGE]), Image.status != DELETED))
        return [(image_id, sha256, thumbnail) for image_id, sha256, thumbnail in rows]

    def _add_to_index(self, rows: list[tuple[int, str, bytes]]) -> None:
        with self._lock:
            new = [row for row in rows if row[1] not in self._indexed]  # another thread may have added some
            thumbnails = np.frombuffer(b"".join(thumbnail for *_, thumbnail in new), np.uint8)
            hashes = [sha256 for _, sha256, _ in new]
            self._index.add(thumbnails.reshape(-1, SIDE, SIDE), hashes)
            self._indexed.update(hashes)
            self._last_id = max(self._last_id, *(image_id for image_id, *_ in rows))


def _with_changes(session: Session, upload: Upload, decision: Decision, changed: Sequence[str]) -> Decision:
    """Return a decision with the ids of the newest entries about the images that it changed, if they can be undone."""
    if upload.source != "feedback":
        return decision
    newest = (newest_entry(session, sha256) for sha256 in changed)
    return replace(decision, changes=tuple(entry.id for entry in newest if entry is not None))


def _row(upload: Upload, decision: Decision) -> Image:
    facts = {name: getattr(upload.image, name) for name in ImageRecord.__slots__}
    return Image(
        **facts | {"thumbnail": upload.image.thumbnail.tobytes()},
        label=upload.label,
        status=decision.status,
        reason_code=decision.code,
        reason=decision.reason,
        doubt=upload.doubt,
        split=decision.split,
        group_key=decision.group_key,
        patient=upload.patient,
        sent_hash=upload.sent_hash,
        source=upload.source,
        uploader=upload.uploader,
    )
