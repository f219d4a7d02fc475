"""The database's tables; ``lesion.database.migrations`` creates and upgrades them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# Values of Image.status; a rejected upload has no row, but the same vocabulary names it.
ACCEPTED, QUARANTINED, DELETED, REJECTED = "accepted", "quarantined", "deleted", "rejected"
DROPPED = "dropped"
REMOVED = (DROPPED, DELETED)  # images that are refused if they come again …
WITHDRAWN = "withdrawn"  # … unless this is their reason_code: their sender took them back
# Values of Image.split.
GATE, EXCLUDED = "gate", "excluded"
TRAINING = ("train", "val", "calibration")

Binary = bytes  # for the class that has a column named ``bytes``


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class Utc(TypeDecorator[datetime]):
    """A time in UTC; SQLite would lose its time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Add the time zone that SQLite does not store."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    """The base class of all tables."""

    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON, bytes: LargeBinary}  # noqa: RUF012


class Image(Base):
    """One labeled image; its file is in the store under its hash.

    ``status`` is ``accepted``, ``quarantined`` (an admin must release or drop it), ``dropped`` (refused; its file is
    kept for some days) or ``deleted`` (the file is gone, and this row is the tombstone). ``split`` is ``train``,
    ``val``, ``calibration``, ``gate`` (never trained on; it belongs to the gate set's ``generation``) or ``excluded``.
    All images of a group have the same split.
    """

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)  # of the file that is stored
    sent_hash: Mapped[str] = mapped_column(String(64), index=True, default="")  # keyed, of the file that was sent
    pixel_sha256: Mapped[str] = mapped_column(String(64), index=True)
    phash: Mapped[str] = mapped_column(String(16))
    label: Mapped[str] = mapped_column(String(200), index=True)
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason_code: Mapped[str] = mapped_column(String(64), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    # The probability, 0 to 1, that the label is wrong: first by the champion at the upload, then by the check of labels
    # before a retraining; None if it was compared with nothing.
    doubt: Mapped[float | None]
    split: Mapped[str] = mapped_column(String(16), index=True)
    generation: Mapped[int | None] = mapped_column(ForeignKey("generations.number"), index=True)
    group_key: Mapped[str] = mapped_column(String(64), index=True)
    patient: Mapped[str] = mapped_column(String(200), default="")  # a pseudonym, see lesion.identity
    source: Mapped[str] = mapped_column(String(200))
    uploader: Mapped[str] = mapped_column(String(200))
    width: Mapped[int]
    height: Mapped[int]
    mode: Mapped[str] = mapped_column(String(16))
    format: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(100), default="")
    bytes: Mapped[int]
    brightness: Mapped[float]
    thumbnail: Mapped[Binary]  # compared in the search for near-duplicates; emptied when the pixels are deleted
    created_at: Mapped[datetime] = mapped_column(default=now)
    changed_at: Mapped[datetime] = mapped_column(default=now)


class Generation(Base):
    """A generation of the gate set: ``open`` while it collects held-out images, then ``frozen``.

    ``selection`` is the rule by which its images were chosen, a value of ``lesion.promotion.comparison.Selection``;
    None while it is open.
    """

    __tablename__ = "generations"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(16))
    selection: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(default=now)
    frozen_at: Mapped[datetime | None]


class GateLook(Base):
    """One use of a generation to decide about one challenger; a job that runs again reuses its look."""

    __tablename__ = "gate_looks"
    __table_args__ = (UniqueConstraint("generation", "number"), UniqueConstraint("generation", "job_id"))

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    generation: Mapped[int] = mapped_column(ForeignKey("generations.number"))
    number: Mapped[int]  # counted from 1
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    alpha: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Snapshot(Base):
    """The data that one model was trained on: a manifest in the store, and rows in ``snapshot_images`` for lineage."""

    __tablename__ = "snapshots"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    manifest_key: Mapped[str] = mapped_column(String(200))
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class SnapshotImage(Base):
    """The split that an image has in a snapshot."""

    __tablename__ = "snapshot_images"

    snapshot_id: Mapped[str] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"), primary_key=True, index=True)
    split: Mapped[str] = mapped_column(String(16))


class ModelVersion(Base):
    """A bundle, stored under ``bundles/<version>/``."""

    __tablename__ = "model_versions"

    version: Mapped[str] = mapped_column(String(12), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    parent: Mapped[str | None] = mapped_column(String(12))
    snapshot_id: Mapped[str | None] = mapped_column(ForeignKey("snapshots.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    facts: Mapped[dict[str, Any]]  # the content of bundle.json
    files: Mapped[list[Any]]  # names of the bundle's files, including bundle.json
    created_at: Mapped[datetime] = mapped_column(default=now)


class Deployment(Base):
    """One row of the ledger of champions; the last row names the served version.

    ``follows`` is the id of the row before. It is unique, so only one of two simultaneous changes can be written.
    """

    __tablename__ = "deployments"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    follows: Mapped[int] = mapped_column(unique=True)  # 0 for the first
    version: Mapped[str] = mapped_column(ForeignKey("model_versions.version"))
    # first, promote, rollback or refused (the champion before did not load)
    action: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Job(Base):
    """A retraining as users see it; DBOS stores the state of the workflow in its own tables.

    ``state`` is ``queued``, ``running``, ``promoted``, ``rejected``, ``failed`` or ``cancelled``. ``active`` is 1 while
    the job is queued or running, else None. It is unique, so that at most one job is active.
    """

    __tablename__ = "jobs"
    __table_args__ = (UniqueConstraint("requested_by", "idempotency_key"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    active: Mapped[int | None] = mapped_column(unique=True)
    stage: Mapped[str] = mapped_column(String(16), default="queued")
    progress: Mapped[float] = mapped_column(default=0.0)  # of the whole job, 0 to 1
    seconds_left: Mapped[float | None]
    epoch: Mapped[int] = mapped_column(default=0)
    metrics: Mapped[list[Any]]  # one object per finished epoch
    request: Mapped[dict[str, Any]]  # epochs, batch_size, learning_rate
    requested_by: Mapped[str] = mapped_column(String(200))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    owner: Mapped[str | None] = mapped_column(String(200))  # the retraining worker that runs it
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Text, default="")  # why it ended in this state
    parent: Mapped[str | None] = mapped_column(String(12))  # the champion it started from
    version: Mapped[str | None] = mapped_column(String(12))  # the challenger
    snapshot_id: Mapped[str | None] = mapped_column(String(32))
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # the gate's report
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(default=now)


class RecordChain(Base):
    """A chain of records: what one API process answered. See ``lesion.records.chain`` for the hashes, hexadecimal.

    Records before ``first_number`` were removed when their time was over; ``before_first`` is the link of the last of
    them.
    """

    __tablename__ = "record_chains"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1, without gaps
    id: Mapped[str] = mapped_column(String(32), unique=True)
    host: Mapped[str] = mapped_column(String(200))
    first_number: Mapped[int]
    before_first: Mapped[str] = mapped_column(String(64))
    last_number: Mapped[int]  # 0 without any record
    last_link: Mapped[str] = mapped_column(String(64))
    seal: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)


class AnswerRow(Base):
    """The record of one answer.

    ``content`` is what ``lesion.records.answer_record`` writes, and empty once it was deleted; the columns after it
    repeat parts of it, to be found by.
    """

    __tablename__ = "answers"
    __table_args__ = (UniqueConstraint("chain", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    chain: Mapped[int] = mapped_column(ForeignKey("record_chains.number"))
    number: Mapped[int]  # in its chain
    link: Mapped[str] = mapped_column(String(64))
    content_hash: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(String(128), index=True)
    at: Mapped[str] = mapped_column(String(32), index=True)
    image: Mapped[str] = mapped_column(String(64), index=True)
    model_version: Mapped[str] = mapped_column(String(12), index=True)


class IdentityKey(Base):
    """One row: a hash by which the key is recognized that the pseudonyms of this storage are made with."""

    __tablename__ = "identity_keys"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key_check: Mapped[str] = mapped_column(String(64))


class Worker(Base):
    """A retraining worker, which was alive at ``seen_at``."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    # What ``GateSettings.to_json`` returned, by which it decides; None of a worker of an earlier version.
    gate_settings: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    seen_at: Mapped[datetime] = mapped_column(default=now)


class ApiKey(Base):
    """A key of the HTTP API; only the hash of its secret is stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16))  # viewer, contributor or admin
    secret_sha256: Mapped[str] = mapped_column(String(64))
    per_minute: Mapped[int | None]  # requests; the server's default if None
    per_day: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    revoked_at: Mapped[datetime | None]


class Usage(Base):
    """The number of requests of one key on one day (UTC)."""

    __tablename__ = "usage"

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    requests: Mapped[int]


class AuditEntry(Base):
    """One change: who did what to which subject, and when."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=now)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(200))
    detail: Mapped[dict[str, Any]]
