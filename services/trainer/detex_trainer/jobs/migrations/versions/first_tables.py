"""Jobs and their previews."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "jobs",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("job_id", sa.String(64), nullable=False, unique=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("concept_name", sa.String(63), nullable=False),
        sa.Column("method", sa.String(32), nullable=False),
        sa.Column("order", sa.JSON, nullable=False),
        sa.Column("idempotency_key", sa.String(128)),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("queue_time", _TIME, nullable=False),
        sa.Column("claim_time", _TIME),
        sa.Column("start_time", _TIME),
        sa.Column("end_time", _TIME),
        sa.Column("progress", sa.JSON),
        sa.Column("failure_reason", sa.String(64)),
        sa.Column("failure_message", sa.Text),
        sa.Column("concept_version", sa.String(64)),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(128)),
        sa.Column("lease_expire_time", _TIME),
        sa.UniqueConstraint("tenant", "idempotency_key", name="jobs_idempotency_key"),
    )
    op.create_index("jobs_state", "jobs", ["state", "tenant", "sequence"])
    op.create_index("jobs_tenant", "jobs", ["tenant", "sequence"])
    op.create_index("jobs_claim_time", "jobs", ["tenant", "claim_time"])
    op.create_table(
        "job_previews",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("key", sa.String(512), nullable=False),
        sa.ForeignKeyConstraint(["sequence"], ["jobs.sequence"], ondelete="CASCADE"),
    )
