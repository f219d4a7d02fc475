"""By which rule the images of each gate generation were chosen, and by which settings of the gate a worker decides."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add both columns.

    The first generation of a storage was always imported with its first model. Those that were frozen since then may
    lack images whose label the champion disputed. Looks keep the level that they spent.
    """
    op.add_column("generations", sa.Column("selection", sa.String(32), nullable=True))
    op.execute(
        "UPDATE generations SET selection = CASE WHEN number = 1 THEN 'imported' ELSE 'opinion_first' END "
        "WHERE status = 'frozen'"
    )
    op.add_column("workers", sa.Column("gate_settings", sa.JSON(), nullable=True))
