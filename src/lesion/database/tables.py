"""The catalogue's tables; ``migrations`` makes and upgrades them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# Values of Image.status and Image.split.
ACCEPTED, QUARANTINED, DELETED = "accepted", "quarantined", "deleted"
GATE, EXCLUDED = "gate", "excluded"
TRAINING = ("train", "val", "calibration")

Binary = bytes  # for a class that has a column of that name


def now() -> datetime:
    """The present, with its time zone."""
    return datetime.now(UTC)


class Utc(TypeDecorator[datetime]):
    """A moment; SQLite would lose its time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back what SQLite left out."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON, bytes: LargeBinary}  # noqa: RUF012


class Image(Base):
    """One labelled image; its file lies in the store under its hash.

    ``status`` is ``accepted``, ``quarantined`` (an admin must release or drop it) or ``deleted`` (the file is gone,
    this row is the tombstone). ``split`` is ``train``, ``val``, ``calibration``, ``gate`` (held out of training for
    good, in ``generation``) or ``excluded``, and belongs to the whole group.
    """

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    pixel_sha256: Mapped[str] = mapped_column(String(64), index=True)
    phash: Mapped[str] = mapped_column(String(16))
    label: Mapped[str] = mapped_column(String(200), index=True)
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason_code: Mapped[str] = mapped_column(String(64), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    split: Mapped[str] = mapped_column(String(16), index=True)
    generation: Mapped[int | None] = mapped_column(ForeignKey("generations.number"), index=True)
    group_key: Mapped[str] = mapped_column(String(64), index=True)
    patient: Mapped[str] = mapped_column(String(200), default="")
    source: Mapped[str] = mapped_column(String(200))
    uploader: Mapped[str] = mapped_column(String(200))
    width: Mapped[int]
    height: Mapped[int]
    mode: Mapped[str] = mapped_column(String(16))
    format: Mapped[str] = mapped_column(String(16))
    bytes: Mapped[int]
    brightness: Mapped[float]
    thumbnail: Mapped[Binary]  # what the search for near-duplicates compares; emptied with the pixels on deletion
    created_at: Mapped[datetime] = mapped_column(default=now)
    changed_at: Mapped[datetime] = mapped_column(default=now)


class Generation(Base):
    """A generation of the gate set: ``open`` while held-out images gather, then ``frozen``."""

    __tablename__ = "generations"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now)
    frozen_at: Mapped[datetime | None]


class GateLook(Base):
    """One use of a generation to decide about one challenger; a job that is run again gets the look it had."""

    __tablename__ = "gate_looks"
    __table_args__ = (UniqueConstraint("generation", "number"), UniqueConstraint("generation", "job_id"))

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    generation: Mapped[int] = mapped_column(ForeignKey("generations.number"))
    number: Mapped[int]  # counted from 1
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    alpha: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Snapshot(Base):
    """What one model was trained on: a manifest in the store, and its rows for lineage."""

    __tablename__ = "snapshots"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    manifest_key: Mapped[str] = mapped_column(String(200))
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class SnapshotImage(Base):
    """An image's part in a snapshot."""

    __tablename__ = "snapshot_images"

    snapshot_id: Mapped[str] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"), primary_key=True, index=True)
    split: Mapped[str] = mapped_column(String(16))


class ModelVersion(Base):
    """A bundle in the store, under ``bundles/<version>/``."""

    __tablename__ = "model_versions"

    version: Mapped[str] = mapped_column(String(12), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    parent: Mapped[str | None] = mapped_column(String(12))
    snapshot_id: Mapped[str | None] = mapped_column(ForeignKey("snapshots.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    facts: Mapped[dict[str, Any]]  # bundle.json
    files: Mapped[list[Any]]  # names of the bundle's files, bundle.json among them
    created_at: Mapped[datetime] = mapped_column(default=now)


class Deployment(Base):
    """One row of the champion ledger; the last one says what is served.

    ``follows`` is the row before: since it is unique, of two that would follow the same row only one can be written.
    """

    __tablename__ = "deployments"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    follows: Mapped[int] = mapped_column(unique=True)  # 0 for the first
    version: Mapped[str] = mapped_column(ForeignKey("model_versions.version"))
    action: Mapped[str] = mapped_column(String(16))  # first, promote, rollback or refused (its bundle did not load)
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Job(Base):
    """A retraining as people see it; DBOS keeps what its durability needs in tables of its own.

    ``state`` is ``queued``, ``running``, ``promoted``, ``rejected``, ``failed`` or ``cancelled``. ``active`` is 1 while
    queued or running, else None: unique, so that at most one job is active.
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
    metrics: Mapped[list[Any]]  # one object an epoch that is done
    request: Mapped[dict[str, Any]]  # epochs, batch_size, learning_rate
    requested_by: Mapped[str] = mapped_column(String(200))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    owner: Mapped[str | None] = mapped_column(String(200))  # the worker that runs it
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Text, default="")  # why it ended as it did
    parent: Mapped[str | None] = mapped_column(String(12))  # the champion it started from
    version: Mapped[str | None] = mapped_column(String(12))  # the challenger
    snapshot_id: Mapped[str | None] = mapped_column(String(32))
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # the gate's report
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Worker(Base):
    """A worker process that is alive, or was at ``seen_at``."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(default=now)


class ApiKey(Base):
    """A key of the HTTP API; of its secret only the hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16))  # viewer, contributor or admin
    secret_sha256: Mapped[str] = mapped_column(String(64))
    per_minute: Mapped[int | None]  # requests; the server's default when None
    per_day: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    revoked_at: Mapped[datetime | None]


class Usage(Base):
    """Requests of one key on one day (UTC)."""

    __tablename__ = "usage"

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    requests: Mapped[int]


class AuditEntry(Base):
    """Who did what to what."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=now)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(200))
    detail: Mapped[dict[str, Any]]
