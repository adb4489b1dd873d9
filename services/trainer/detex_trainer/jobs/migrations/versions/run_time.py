"""How long workers have had a job."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; trainers of the version before continue working."""
    op.add_column("jobs", sa.Column("run_seconds", sa.Double, nullable=False, server_default="0"))
