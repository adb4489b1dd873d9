"""Training sets with their lifetimes; priorities, deadlines and retries of jobs, and what is left to clear of them."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table and columns; trainers of the version before continue working with them."""
    connection = op.get_bind()
    if sa.inspect(connection).has_table("schema_version"):
        op.drop_table("schema_version")
    op.create_table(
        "training_sets",
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("training_set_id", sa.String(64), primary_key=True),
        sa.Column("upload_id", sa.String(64)),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("keep_photos", sa.Boolean, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("use_time", _TIME),
        sa.Column("delete_time", _TIME),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.UniqueConstraint("tenant", "upload_id", name="training_sets_upload_id"),
    )
    op.create_index("training_sets_create_time", "training_sets", ["deleted", "create_time"])
    op.add_column("jobs", sa.Column("training_set_id", sa.String(64), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("deadline_time", _TIME))
    op.add_column("jobs", sa.Column("ready_time", _TIME))
    op.add_column("jobs", sa.Column("outages", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("retry_reason", sa.String(64)))
    op.add_column("jobs", sa.Column("retry_message", sa.Text))
    op.add_column("jobs", sa.Column("cleared", sa.Boolean, nullable=False, server_default=sa.false()))
    _fill_in(connection)
    op.create_index("jobs_training_set", "jobs", ["tenant", "training_set_id"])
    op.create_index("jobs_cleared", "jobs", ["cleared", "state"])


def _fill_in(connection: sa.Connection) -> None:
    """Take the training sets of jobs from their orders; what jobs of old have left was meant to stay."""
    jobs = sa.table(
        "jobs",
        sa.column("sequence", sa.BigInteger),
        sa.column("state", sa.String),
        sa.column("order", sa.JSON),
        sa.column("training_set_id", sa.String),
        sa.column("cleared", sa.Boolean),
    )
    for sequence, order in connection.execute(sa.select(jobs.c.sequence, jobs.c.order)).all():
        read = json.loads(order) if isinstance(order, str) else order
        connection.execute(
            sa.update(jobs).where(jobs.c.sequence == sequence).values(training_set_id=read["training_set_id"])
        )
    ended = jobs.c.state.in_(["succeeded", "failed", "cancelled"])
    connection.execute(sa.update(jobs).where(ended).values(cleared=True))
