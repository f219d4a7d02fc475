"""The catalogue, the models and their ledger, the jobs, the keys and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _images()
    _jobs()
    _models()
    _access()


def _moment(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, length: int | None = None, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=nullable)


def _whole(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _json(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=nullable)


def _counted() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True)


def _index(table: str, *columns: str) -> None:
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])


def _images() -> None:
    op.create_table(
        "generations",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        _text("status", 16),
        _moment("created_at"),
        _moment("frozen_at", nullable=True),
    )
    op.create_table(
        "images",
        _counted(),
        _text("sha256", 64),
        _text("pixel_sha256", 64),
        _text("phash", 16),
        _text("label", 200),
        _text("status", 16),
        _text("reason_code", 64),
        _text("reason"),
        _text("split", 16),
        _whole("generation", nullable=True),
        _text("group_key", 64),
        _text("patient", 200),
        _text("source", 200),
        _text("uploader", 200),
        _whole("width"),
        _whole("height"),
        _text("mode", 16),
        _text("format", 16),
        _whole("bytes"),
        _number("brightness"),
        sa.Column("thumbnail", sa.LargeBinary(), nullable=False),
        _moment("created_at"),
        _moment("changed_at"),
        sa.UniqueConstraint("sha256"),
        sa.ForeignKeyConstraint(["generation"], ["generations.number"]),
    )
    _index("images", "pixel_sha256", "label", "status", "split", "generation", "group_key")
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(32), primary_key=True),
        _text("fingerprint", 64),
        _text("manifest_key", 200),
        _json("facts"),
        _moment("created_at"),
    )
    op.create_table(
        "snapshot_images",
        sa.Column("snapshot_id", sa.String(32), sa.ForeignKey("snapshots.id"), primary_key=True),
        sa.Column("sha256", sa.String(64), sa.ForeignKey("images.sha256"), primary_key=True),
        _text("split", 16),
    )
    _index("snapshot_images", "sha256")


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        _text("state", 16),
        _whole("active", nullable=True),
        _text("stage", 16),
        _number("progress"),
        _number("seconds_left", nullable=True),
        _whole("epoch"),
        _json("metrics"),
        _json("request"),
        _text("requested_by", 200),
        _text("idempotency_key", 200, nullable=True),
        _text("owner", 200, nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        _text("reason"),
        _text("parent", 12, nullable=True),
        _text("version", 12, nullable=True),
        _text("snapshot_id", 32, nullable=True),
        _json("verdict", nullable=True),
        _moment("created_at"),
        _moment("started_at", nullable=True),
        _moment("finished_at", nullable=True),
        _moment("updated_at"),
        sa.UniqueConstraint("active"),
        sa.UniqueConstraint("requested_by", "idempotency_key"),
    )
    _index("jobs", "state")
    op.create_table(
        "gate_looks",
        _counted(),
        _whole("generation"),
        _whole("number"),
        _text("job_id", 32),
        _number("alpha"),
        _moment("created_at"),
        sa.UniqueConstraint("generation", "number"),
        sa.UniqueConstraint("generation", "job_id"),
        sa.ForeignKeyConstraint(["generation"], ["generations.number"]),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), primary_key=True),
        _text("host", 200),
        _whole("pid"),
        _moment("seen_at"),
    )


def _models() -> None:
    op.create_table(
        "model_versions",
        sa.Column("version", sa.String(12), primary_key=True),
        _text("name", 200),
        _text("parent", 12, nullable=True),
        _text("snapshot_id", 32, nullable=True),
        _text("job_id", 32, nullable=True),
        _json("facts"),
        _json("files"),
        _moment("created_at"),
        sa.UniqueConstraint("job_id"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"]),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
    )
    op.create_table(
        "deployments",
        _counted(),
        _whole("follows"),
        _text("version", 12),
        _text("action", 16),
        _text("actor", 200),
        _text("reason"),
        _text("job_id", 32, nullable=True),
        _moment("created_at"),
        sa.UniqueConstraint("follows"),
        sa.UniqueConstraint("job_id"),
        sa.ForeignKeyConstraint(["version"], ["model_versions.version"]),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
    )


def _access() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        _text("name", 200),
        _text("role", 16),
        _text("secret_sha256", 64),
        _whole("per_minute", nullable=True),
        _whole("per_day", nullable=True),
        _moment("created_at"),
        _moment("revoked_at", nullable=True),
    )
    op.create_table(
        "usage",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        _whole("requests"),
    )
    op.create_table(
        "audit_log",
        _counted(),
        _moment("at"),
        _text("actor", 200),
        _text("action", 64),
        _text("subject", 200),
        _json("detail"),
    )
