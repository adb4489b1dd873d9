"""Which object store the jobs belong to, what is still to be deleted there, and which sets are stored as a whole."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add tables and column; trainers of the version before continue working."""
    op.add_column("training_sets", sa.Column("stored", sa.Boolean, nullable=False, server_default=sa.true()))
    op.create_table(
        "object_stores",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("identity", sa.String(32), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "deletions",
        sa.Column("prefix", sa.String(512), primary_key=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("request_time", sa.DateTime(timezone=True), nullable=False),
        if_not_exists=True,
    )
