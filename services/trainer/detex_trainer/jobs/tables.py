"""The tables behind jobs and training sets, for SQLite and PostgreSQL; a change here needs a migration."""

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from detex_trainer.domain.progress import JobProgress
from detex_trainer.jobs.record import Job, JobFailure, JobOrder
from detex_trainer.jobs.state import JobState

PROGRESS = TypeAdapter(JobProgress)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; SQLite, which knows no time zones, keeps it as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; raises ValueError for a time without zone, which could mean anything."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON}  # noqa: RUF012 - as SQLAlchemy reads it


class JobRow(Table):
    """A job.

    A running job is held by one server (`lease_owner`) until `lease_expire_time`, which that server moves on as long
    as it lives; `claims` tells two claims of the same server apart. Jobs of one `pack_key` can be trained together, and
    those of one `pack_id` are, by one worker; it stays with a job whose server was lost, for its worker may be alive.
    `run_seconds` is how long workers have had it in attempts that are over. `cleared` says that nothing is left to
    delete of what an ended job does not need any more.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key", name="jobs_idempotency_key"),
        Index("jobs_state", "state", "tenant", "sequence"),
        Index("jobs_tenant", "tenant", "sequence"),
        Index("jobs_claim_time", "tenant", "claim_time"),
        Index("jobs_training_set", "tenant", "training_set_id"),
        Index("jobs_cleared", "cleared", "state"),
        Index("jobs_pack_id", "pack_id"),
    )

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(64), unique=True)
    tenant: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(String(16))
    concept_name: Mapped[str] = mapped_column(String(63))
    method: Mapped[str] = mapped_column(String(32))
    order: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None] = mapped_column(String(128))
    request_sha256: Mapped[str] = mapped_column(String(64))
    create_time: Mapped[datetime]
    queue_time: Mapped[datetime]
    claim_time: Mapped[datetime | None]
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    failure_reason: Mapped[str | None] = mapped_column(String(64))
    failure_message: Mapped[str | None] = mapped_column(Text)
    concept_version: Mapped[str | None] = mapped_column(String(64))
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    claims: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expire_time: Mapped[datetime | None]
    training_set_id: Mapped[str] = mapped_column(String(64), server_default="")
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    deadline_time: Mapped[datetime | None]
    ready_time: Mapped[datetime | None]
    outages: Mapped[int] = mapped_column(default=0, server_default="0")
    retry_reason: Mapped[str | None] = mapped_column(String(64))
    retry_message: Mapped[str | None] = mapped_column(Text)
    cleared: Mapped[bool] = mapped_column(default=False, server_default=false())
    pack_key: Mapped[str] = mapped_column(String(64), default="", server_default="")
    pack_id: Mapped[str | None] = mapped_column(String(64))
    run_seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")

    def to_job(self) -> Job:
        """The row as a record."""
        return Job(
            sequence=self.sequence,
            job_id=self.job_id,
            tenant=self.tenant,
            order=JobOrder.model_validate(self.order),
            state=JobState(self.state),
            create_time=self.create_time,
            queue_time=self.queue_time,
            start_time=self.start_time,
            end_time=self.end_time,
            progress=None if self.progress is None else PROGRESS.validate_python(self.progress),
            failure=_failure(self.failure_reason, self.failure_message),
            concept_version=self.concept_version,
            cancel_requested=self.cancel_requested,
            attempts=self.attempts,
            outages=self.outages,
            priority=self.priority,
            deadline_time=self.deadline_time,
            interruption=_failure(self.retry_reason, self.retry_message),
            run_seconds=self.run_seconds,
        )


class PreviewRow(Table):
    """A preview picture of a job; the picture itself lies in the object store."""

    __tablename__ = "job_previews"

    sequence: Mapped[int] = mapped_column(ForeignKey("jobs.sequence", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    prompt: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(String(512))


class TrainingSetRow(Table):
    """A training set: its pictures lie in the object store, what becomes of them is decided here.

    `delete_time` is when its deletion was decided, after which no job may use it; `deleted` says that it is done. The
    row stays, so that a set that is gone is not taken for one that was never listed. Until `change_expire_time` it is
    being changed by the call that `change_id` names. `stored` says that all of it has been stored.
    """

    __tablename__ = "training_sets"
    __table_args__ = (
        UniqueConstraint("tenant", "upload_id", name="training_sets_upload_id"),
        Index("training_sets_create_time", "deleted", "create_time"),
    )

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    training_set_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    upload_id: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    keep_photos: Mapped[bool]
    create_time: Mapped[datetime]
    use_time: Mapped[datetime | None]
    delete_time: Mapped[datetime | None]
    deleted: Mapped[bool] = mapped_column(default=False)
    stored: Mapped[bool] = mapped_column(default=True, server_default=true())
    change_id: Mapped[str | None] = mapped_column(String(32))
    change_expire_time: Mapped[datetime | None]


class ObjectStoreRow(Table):
    """The object store that jobs and training sets belong to; there is one row at most, number 1."""

    __tablename__ = "object_stores"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    identity: Mapped[str] = mapped_column(String(32))


class DeletionRow(Table):
    """Objects that are to be deleted: all whose keys begin with `prefix`. The row goes when they are gone."""

    __tablename__ = "deletions"

    prefix: Mapped[str] = mapped_column(String(512), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    request_time: Mapped[datetime]


def _failure(reason: str | None, message: str | None) -> JobFailure | None:
    return None if reason is None else JobFailure(reason, message or "")
