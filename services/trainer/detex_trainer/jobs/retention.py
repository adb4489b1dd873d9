"""How long jobs that have ended are kept, and which are no longer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, false, func, or_, select
from sqlalchemy.orm import Session

from detex_trainer.jobs.clock import utc_now
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.record import Job
from detex_trainer.jobs.state import ENDED
from detex_trainer.jobs.tables import JobRow, PreviewRow, TrainingSetRow
from detex_trainer.jobs.transitions import changed

# Longer than a worker that was taken for dead continues: its job's outcome, which keeps it from publishing, goes as
# well.
_LEAST_SECONDS = 3_600.0


@dataclass(frozen=True)
class RetentionPolicy:
    """How long and how many ended jobs are kept; nothing goes within an hour of its end.

    Attributes:
        ended_seconds: How long a job is kept after its end; 0 forever.
        most_per_tenant: Ended jobs that are kept of each tenant, the newest; 0 sets no limit.
    """

    ended_seconds: float
    most_per_tenant: int


class JobRetention:
    """Finds ended jobs that are to go and forgets them; each method is one transaction.

    Several trainers may do so at once: a job is taken for removed by the one whose transaction removes its row. The job
    submitted last stays whatever its age: SQLite gives the number of a newest row that was removed to the next one,
    and numbers order the pages of jobs.
    """

    def __init__(self, database: Database, policy: RetentionPolicy, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._policy = policy
        self._now = now

    def due(self, *, limit: int = 64) -> tuple[Job, ...]:
        """Ended jobs that are not kept any longer and whose working files are gone, the oldest first."""
        policy, now = self._policy, self._now()
        settled = and_(
            JobRow.state.in_(sorted(ENDED)),
            JobRow.cleared,
            JobRow.end_time < now - timedelta(seconds=_LEAST_SECONDS),
            JobRow.sequence < select(func.max(JobRow.sequence)).scalar_subquery(),
        )
        too_old: ColumnElement[bool] = false()
        too_many: ColumnElement[bool] = false()
        if policy.ended_seconds:
            too_old = JobRow.end_time < now - timedelta(seconds=policy.ended_seconds)
        if policy.most_per_tenant:
            place = func.row_number().over(partition_by=JobRow.tenant, order_by=JobRow.sequence.desc())
            ended = select(JobRow.sequence, place.label("place")).where(JobRow.state.in_(sorted(ENDED))).subquery()
            too_many = JobRow.sequence.in_(select(ended.c.sequence).where(ended.c.place > policy.most_per_tenant))
        statement = select(JobRow).where(settled, or_(too_old, too_many)).order_by(JobRow.sequence).limit(limit)
        with self._database.reading() as session:
            return tuple(row.to_job() for row in session.scalars(statement))

    def forget_previews(self, job: Job) -> None:
        """Name no preview of a job any more; done before its pictures are deleted, so that none is named in vain."""
        with self._database.writing() as session:
            _delete_previews(session, job)

    def forget(self, job: Job) -> bool:
        """Remove a job whose objects are deleted; False where another trainer has."""
        guard = (JobRow.sequence == job.sequence) & (JobRow.job_id == job.job_id) & JobRow.state.in_(sorted(ENDED))
        with self._database.writing() as session:
            _delete_previews(session, job)
            return changed(session.execute(delete(JobRow).where(guard)))

    def forget_deleted_training_sets(self, *, limit: int = 1_000) -> int:
        """Remove the rows of training sets that were deleted so long ago; returns how many."""
        seconds = self._policy.ended_seconds
        if not seconds:
            return 0
        before = self._now() - timedelta(seconds=max(seconds, _LEAST_SECONDS))
        key = (TrainingSetRow.tenant, TrainingSetRow.training_set_id)
        found = select(*key).where(TrainingSetRow.deleted, TrainingSetRow.delete_time < before).limit(limit)
        with self._database.reading() as session:
            keys = session.execute(found).all()
        if not keys:
            return 0
        with self._database.writing() as session:
            for tenant, training_set_id in keys:
                session.execute(
                    delete(TrainingSetRow).where(
                        TrainingSetRow.tenant == tenant,
                        TrainingSetRow.training_set_id == training_set_id,
                        TrainingSetRow.deleted,
                    )
                )
        return len(keys)


def _delete_previews(session: Session, job: Job) -> None:
    session.execute(delete(PreviewRow).where(PreviewRow.sequence == job.sequence))
