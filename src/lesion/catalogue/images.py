"""The images of the catalogue, and those of the gate set's generations: add, list and delete them.

Functions that take a session join the caller's transaction; those that take a storage also touch files. Every change is
recorded in the audit log of the same transaction.
"""

from sqlalchemy import BigInteger, and_, case, cast, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.lineage import ImageUse, lineage_of_image
from lesion.core.errors import ConflictError, InvalidValueError, NotFoundError
from lesion.database.audit import record
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, DELETED, GATE, QUARANTINED, WITHDRAWN, Generation, Image, now
from lesion.identity.pseudonyms import Pseudonyms
from lesion.imaging.limits import DEFAULT_LIMITS, Limits

PIXEL_FOLDER = "pixels"  # below Storage.cache: decoded images of a retraining (its data.cache_dir)


class CatalogueError(ConflictError):
    """A change that the state of the catalogue does not allow; the ``code`` names the reason."""


def find_image(session: Session, sha256: str) -> Image | None:
    """Return an image's row, whatever its status; None if there is no such image."""
    return session.scalar(select(Image).where(Image.sha256 == sha256))


def get_image(session: Session, sha256: str, *, lock: bool = False) -> Image:
    """Return an image's row, and ``lock`` it to change it; an unknown one is a NotFoundError (``image_unknown``)."""
    statement = select(Image).where(Image.sha256 == sha256)
    row = session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFoundError(
            f"There is no image '{sha256[:64]}'. Give the SHA-256 of its file as 64 small hexadecimal digits.",
            code="image_unknown",
        )
    return row


def stored_hash(session: Session, sha256: str, pseudonyms: Pseudonyms) -> str:
    """Return the hash of the image that was stored for a file, whose own hash is given; or that hash, if it is unknown.

    A file that is stored as it was sent has one hash. One from which something was taken has two.
    """
    if find_image(session, sha256) is not None:
        return sha256
    sent = select(Image.sha256).where(Image.sent_hash == pseudonyms.sent(sha256)).order_by(Image.id)
    return session.scalar(sent.limit(1)) or sha256


def list_images(
    session: Session,
    *,
    status: str | None = None,
    label: str | None = None,
    after: int = 0,
    limit: int = 100,
    doubtful_first: bool = False,
) -> list[Image]:
    """Return one page of images, the oldest first; ``after`` is the last id of the page before.

    With ``doubtful_first`` those with the most doubtful labels come first, and those without any doubt measured last.
    """
    statement = select(Image).order_by(Image.id).limit(limit)
    if doubtful_first:
        doubt = func.coalesce(Image.doubt, -1.0)
        statement = select(Image).order_by(doubt.desc(), Image.id).limit(limit)
        last = session.scalar(select(doubt).where(Image.id == after))
        if last is not None:
            statement = statement.where(or_(doubt < last, and_(doubt == last, Image.id > after)))
    else:
        statement = statement.where(Image.id > after)
    if status is not None:
        statement = statement.where(Image.status == status)
    if label is not None:
        statement = statement.where(Image.label == label)
    return list(session.scalars(statement))


def images_as_sent(session: Session) -> list[str]:
    """Return the hashes of images that were stored by a version that did not take away what identifies a person."""
    statement = select(Image.sha256).where(Image.sent_hash == "", Image.status != DELETED).order_by(Image.id)
    return list(session.scalars(statement))


def limits_of_accepted(session: Session) -> Limits:
    """Return limits within which every accepted image is: servers checked them by their own, perhaps wider, limits."""
    side = case((Image.width < Image.height, Image.width), else_=Image.height)
    facts = func.max(Image.bytes), func.max(cast(Image.width, BigInteger) * Image.height), func.min(side)
    largest, pixels, smallest = session.execute(select(*facts).where(Image.status == ACCEPTED)).one()
    if largest is None:
        return DEFAULT_LIMITS
    return DEFAULT_LIMITS.covering(largest, pixels, smallest)


def open_generation(session: Session) -> Generation:
    """Return the gate generation that collects images; it is not frozen before this transaction ends.

    Without imported data this is a CatalogueError (``catalogue_empty``).
    """
    statement = select(Generation).where(Generation.status == "open").with_for_update(read=True)
    # If another transaction is freezing it, the first query waits and returns nothing; the second finds its successor.
    generation = session.scalar(statement) or session.scalar(statement)
    if generation is None:
        raise CatalogueError(
            "The catalogue is empty. First import the data of a first model with lesion models import.",
            code="catalogue_empty",
        )
    return generation


def frozen_generations(session: Session) -> list[int]:
    """Return the numbers of the gate generations that models are judged by, the newest last."""
    frozen = select(Generation.number).where(Generation.status == "frozen")
    return list(session.scalars(frozen.order_by(Generation.number)))


def gate_images(session: Session, generation: int) -> list[tuple[str, str, str]]:
    """Return hash, label and group key of a generation's images, the oldest first."""
    columns = select(Image.sha256, Image.label, Image.group_key)
    accepted = columns.where(Image.status == ACCEPTED, Image.split == GATE, Image.generation == generation)
    return [(sha256, label, group) for sha256, label, group in session.execute(accepted.order_by(Image.id))]


def images_to_freeze(session: Session, generation: int, renew_images: int) -> list[tuple[str, str, str]]:
    """Return what :func:`gate_images` does of an open generation, for those images that may be frozen now.

    There are none if they are fewer than ``renew_images``, or of a single class. Which images the champion puts in
    quarantine depends on its errors: a generation of the rest would favor it. So only groups count that came before the
    oldest held-out image in quarantine.
    """
    later = _later_groups(session)
    images = [image for image in gate_images(session, generation) if image[2] not in later]
    return images if len(images) >= renew_images and len({label for _, label, _ in images}) > 1 else []


def _later_groups(session: Session) -> set[str]:
    """Return the groups of held-out images that came after the oldest one in quarantine, or have one there."""
    quarantined = Image.status == QUARANTINED, Image.split == GATE
    oldest = session.scalar(select(func.min(Image.id)).where(*quarantined))
    if oldest is None:
        return set()
    held_out = select(Image.group_key).where(Image.split == GATE, Image.status.in_((ACCEPTED, QUARANTINED)))
    later = held_out.group_by(Image.group_key).having(func.min(Image.id) > oldest)
    return {*session.scalars(later), *session.scalars(held_out.where(*quarantined))}


def add_image(session: Session, row: Image) -> bool:
    """Add an image whose file is in the store; an accepted gate image joins the open generation.

    Return False if the hash exists already; if two servers add the same image, one of them gets False. An image that
    its sender took back gets the new facts.
    """
    if row.status == ACCEPTED and row.split == GATE:
        row.generation = open_generation(session).number
    if (withdrawn := lock_withdrawn(session, row.sha256)) is not None:
        row.created_at = row.changed_at = now()
        for column in {*Image.__table__.columns.keys()} - {"id"}:
            setattr(withdrawn, column, getattr(row, column))
    else:
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:
            if find_image(session, row.sha256) is None:
                raise
            return False
    detail = {"label": row.label, "split": row.split, "source": row.source, "code": row.reason_code}
    record(session, row.uploader, f"image.{row.status}", row.sha256, **detail)
    return True


def lock_withdrawn(session: Session, sha256: str) -> Image | None:
    """Return and lock the row of an image that its sender took back; None if that is not so.

    While it is locked, nobody removes the file.
    """
    withdrawn = Image.sha256 == sha256, Image.reason_code == WITHDRAWN
    return session.scalar(select(Image).where(*withdrawn).with_for_update())


def delete_image(storage: Storage, sha256: str, actor: str, reason: str) -> list[ImageUse]:
    """Remove an image's pixels everywhere, and return the versions that were trained or judged with it.

    Its tombstone stays, and the image is refused from now on. The tombstone is written first: after an interruption an
    unused file is left, which another call removes.

    Raises:
        InvalidValueError: The reason is empty.
        StoreError: The store does not answer; call again.
    """
    require_reason(reason)
    with storage.session() as session:
        row = get_image(session, sha256, lock=True)
        if row.status != DELETED:
            record(session, actor, "image.deleted", sha256, reason=reason, label=row.label, was=row.status)
            row.status, row.reason_code, row.reason = DELETED, "deleted", reason
            row.thumbnail, row.changed_at = b"", now()
        versions = lineage_of_image(session, sha256)
    remove_files(storage, sha256)
    return versions


def purge_deleted(storage: Storage) -> int:
    """Finish interrupted deletions and those of this machine's cache, at a worker's start; return the number of all."""
    with storage.session() as session:
        hashes = session.scalars(select(Image.sha256).where(Image.status == DELETED)).all()
    for sha256 in hashes:
        remove_deleted(storage, sha256)
    return len(hashes)


def remove_deleted(storage: Storage, sha256: str) -> None:
    """Remove the file of an image that is deleted, unless it was withdrawn and has come again meanwhile."""
    with storage.session() as session:
        if get_image(session, sha256, lock=True).status == DELETED:
            remove_files(storage, sha256)


def remove_files(storage: Storage, sha256: str) -> None:
    """Remove an image's file from the store, and its copies from this machine's cache."""
    storage.store.delete(image_key(sha256))
    decoded = storage.cache.glob(f"{PIXEL_FOLDER}/*/{sha256[:2]}/{sha256}.rgb")
    for copy in (storage.cache / image_key(sha256), *decoded):
        copy.unlink(missing_ok=True)


def require_reason(reason: str) -> None:
    """Raise an InvalidValueError if a reason is empty (``reason_missing``)."""
    if not reason.strip():
        raise InvalidValueError("Give a reason for the readers of the audit log.", code="reason_missing")
