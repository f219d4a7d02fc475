"""The device that took an image."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; of the images that are there the device stays unknown."""
    op.add_column("images", sa.Column("device", sa.String(100), nullable=False, server_default=""))
