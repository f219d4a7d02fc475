"""Keyed hashes of files as they were sent, and of the key that they are made with."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add both; files that are there were stored as they were sent, and have no such hash."""
    op.add_column("images", sa.Column("sent_hash", sa.String(64), nullable=False, server_default=""))
    op.create_index("ix_images_sent_hash", "images", ["sent_hash"])
    op.create_table(
        "identity_keys",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key_check", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
