"""Which training sets are being changed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; trainers of the version before continue working."""
    op.add_column("training_sets", sa.Column("change_id", sa.String(32)))
    op.add_column("training_sets", sa.Column("change_expire_time", sa.DateTime(timezone=True)))
