"""Which jobs can be trained together, and which are."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns; trainers of the version before continue working, and what they queue is trained alone."""
    op.add_column("jobs", sa.Column("pack_key", sa.String(64), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("pack_id", sa.String(64)))
    op.create_index("jobs_pack_id", "jobs", ["pack_id"])
    # Workers of running jobs go by the names of their jobs.
    jobs = sa.table(
        "jobs", sa.column("state", sa.String), sa.column("job_id", sa.String), sa.column("pack_id", sa.String)
    )
    op.execute(sa.update(jobs).where(jobs.c.state == "running").values(pack_id=jobs.c.job_id))
