"""How doubtful the label of an image is."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; the labels of the images that are there were compared with nothing, so that it stays empty."""
    op.add_column("images", sa.Column("doubt", sa.Double(), nullable=True))
