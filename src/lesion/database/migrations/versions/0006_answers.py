"""Records of answers, and their chains."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "record_chains",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("first_number", sa.Integer(), nullable=False),
        sa.Column("before_first", sa.String(64), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("last_link", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("chain", sa.Integer(), sa.ForeignKey("record_chains.number"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("link", sa.String(64), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("image", sa.String(64), nullable=False),
        sa.Column("model_version", sa.String(12), nullable=False),
        sa.UniqueConstraint("chain", "number"),
    )
    for column in ("request_id", "at", "image", "model_version"):
        op.create_index(f"ix_answers_{column}", "answers", [column])
