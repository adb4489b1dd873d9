"""What callers do with jobs: submit, look, list, cancel."""

import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from detex_core.errors import AlreadyExistsError, NotFoundError, ResourceExhaustedError, invalid_input
from detex_trainer.domain.hyperparameters import Method
from detex_trainer.jobs.clock import utc_now
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.page_token import read_sequence_token, write_page_token
from detex_trainer.jobs.record import Job, JobOrder, JobPage, PreviewRecord
from detex_trainer.jobs.state import ENDED, JobState
from detex_trainer.jobs.tables import JobRow, PreviewRow
from detex_trainer.jobs.training_sets import TrainingSetLedger

MAX_IDEMPOTENCY_KEY_CHARACTERS = 128

_JOB_ID = re.compile(r"job-[0-9a-f]{16}")


@dataclass(frozen=True)
class Submission:
    """A request for a job.

    Attributes:
        tenant: Owner.
        order: What the job is to do.
        request_sha256: SHA-256 (hex) over what the caller asked for, to tell a repeated request from another one.
        idempotency_key: Chosen by the caller; empty for none.
        priority: Higher ones come first among the jobs of a tenant.
        deadline_time: When the job is given up; None for never.
    """

    tenant: str
    order: JobOrder
    request_sha256: str
    idempotency_key: str = ""
    priority: int = 0
    deadline_time: datetime | None = None


class JobRepository:
    """Jobs of all tenants; each method is one transaction and sees the jobs of one tenant alone."""

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now
        self._training_sets = TrainingSetLedger(database, now)

    def submit(self, submission: Submission, *, max_queued: int, retry_delay_seconds: float = 30) -> Job:
        """Queue a job.

        Args:
            submission: What is asked for.
            max_queued: Jobs of the tenant that may wait at a time.
            retry_delay_seconds: Wait before a later try, told to a caller whose queue is full.

        Returns:
            The new job; for a known idempotency key and the same request the job of then, as it stands.

        Raises:
            InvalidInputError: The idempotency key is too long.
            AlreadyExistsError: The idempotency key came with another request before.
            NotFoundError: The training set is being deleted.
            ResourceExhaustedError: The tenant has `max_queued` jobs waiting (reason `QUEUE_FULL`).
        """
        try:
            return self._submit(submission, max_queued, retry_delay_seconds)
        except IntegrityError:
            # Another server inserted the same key between our look and our insert; now it is there to be found.
            return self._submit(submission, max_queued, retry_delay_seconds)

    def find_submitted(self, tenant: str, idempotency_key: str, request_sha256: str) -> Job | None:
        """The job that this key was first used for, or None.

        Raises:
            InvalidInputError: The key is too long.
            AlreadyExistsError: The key came with another request before.
        """
        if len(idempotency_key) > MAX_IDEMPOTENCY_KEY_CHARACTERS:
            raise invalid_input(
                "idempotency_key",
                f"{len(idempotency_key):,}",
                f"at most {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters",
            )
        if not idempotency_key:
            return None
        with self._database.reading() as session:
            return _find_submitted(session, tenant, idempotency_key, request_sha256)

    def get(self, tenant: str, job_id: str) -> Job:
        """A job as it stands; raises NotFoundError where the tenant has none of that id."""
        with self._database.reading() as session:
            return _row(session, tenant, job_id).to_job()

    def list(
        self,
        tenant: str,
        *,
        page_size: int,
        page_token: str = "",
        states: Collection[JobState] = (),
        concept_name: str = "",
    ) -> JobPage:
        """Jobs of a tenant, the newest first; a page is stable while new jobs arrive.

        Args:
            tenant: Owner.
            page_size: Jobs per page, at least 1.
            page_token: `next_page_token` of the page before; empty for the first.
            states: Only these; none means all.
            concept_name: Only jobs of this concept; empty means all.

        Raises:
            InvalidInputError: The page token is none of this query.
        """
        query = (tenant, sorted(set(states)), concept_name)
        after = read_sequence_token(page_token, *query)
        statement = select(JobRow).where(JobRow.tenant == tenant).order_by(JobRow.sequence.desc()).limit(page_size + 1)
        if states:
            statement = statement.where(JobRow.state.in_(query[1]))
        if concept_name:
            statement = statement.where(JobRow.concept_name == concept_name)
        if after is not None:
            statement = statement.where(JobRow.sequence < after)
        with self._database.reading() as session:
            jobs = tuple(row.to_job() for row in session.scalars(statement))
        if len(jobs) <= page_size:
            return JobPage(jobs, "")
        jobs = jobs[:page_size]
        return JobPage(jobs, write_page_token(str(jobs[-1].sequence), *query))

    def request_cancel(self, tenant: str, job_id: str) -> Job:
        """Ask a job to stop: one that never ran is cancelled at once, another when its worker has stopped.

        One that waits to be retried is ended by the next server that looks: an earlier attempt may have published.

        Returns:
            The job as it stands now; one that has ended stays as it is.

        Raises:
            NotFoundError: The tenant has no job of that id.
        """
        with self._database.writing() as session:
            row = _row(session, tenant, job_id)
            session.execute(
                update(JobRow)
                .where(JobRow.sequence == row.sequence, JobRow.state == JobState.QUEUED, JobRow.claims == 0)
                .values(state=JobState.CANCELLED, end_time=self._now(), cancel_requested=True)
            )
            session.execute(
                update(JobRow)
                .where(JobRow.sequence == row.sequence, JobRow.state.in_([JobState.QUEUED, JobState.RUNNING]))
                .values(cancel_requested=True)
            )
            session.refresh(row)
            return row.to_job()

    def previews(self, job: Job, *, after_step: int = -1) -> tuple[PreviewRecord, ...]:
        """Preview pictures drawn after a step, in the order of their steps."""
        statement = (
            select(PreviewRow)
            .where(PreviewRow.sequence == job.sequence, PreviewRow.step > after_step)
            .order_by(PreviewRow.step)
        )
        with self._database.reading() as session:
            return tuple(PreviewRecord(row.step, row.prompt, row.key) for row in session.scalars(statement))

    def published_by(self, tenant: str, concept_name: str, versions: Collection[str]) -> tuple[str, ...]:
        """Ids of the jobs that published these versions of a concept."""
        statement = select(JobRow.job_id).where(
            JobRow.tenant == tenant, JobRow.concept_name == concept_name, JobRow.concept_version.in_(sorted(versions))
        )
        with self._database.reading() as session:
            return tuple(session.scalars(statement))

    def to_clear(self, *, ended_seconds: float, limit: int = 32) -> tuple[Job, ...]:
        """Jobs that ended so long ago and whose working files were not deleted yet, the oldest first."""
        before = self._now() - timedelta(seconds=ended_seconds)
        statement = (
            select(JobRow)
            .where(~JobRow.cleared, JobRow.state.in_(sorted(ENDED)), JobRow.end_time < before)
            .order_by(JobRow.sequence)
            .limit(limit)
        )
        with self._database.reading() as session:
            return tuple(row.to_job() for row in session.scalars(statement))

    def mark_cleared(self, job: Job) -> None:
        """Note that the working files of an ended job are deleted."""
        with self._database.writing() as session:
            session.execute(update(JobRow).where(JobRow.sequence == job.sequence).values(cleared=True))

    def counts(self) -> dict[tuple[JobState, Method], int]:
        """How many jobs there are by state and method, over all tenants; for metrics."""
        statement = select(JobRow.state, JobRow.method, func.count()).group_by(JobRow.state, JobRow.method)
        with self._database.reading() as session:
            return {(JobState(state), Method(method)): count for state, method, count in session.execute(statement)}

    def oldest_seconds(self) -> dict[JobState, float]:
        """Since the oldest queued job entered the queue and the oldest running one was taken, over all tenants."""
        now, found = self._now(), {}
        with self._database.reading() as session:
            for state, column in ((JobState.QUEUED, JobRow.queue_time), (JobState.RUNNING, JobRow.claim_time)):
                oldest = session.scalar(select(func.min(column)).where(JobRow.state == state))
                if oldest is not None:
                    found[state] = max(0.0, (now - oldest).total_seconds())
        return found

    def _submit(self, submission: Submission, max_queued: int, retry_delay_seconds: float) -> Job:
        now = self._now()
        with self._database.writing() as session:
            key = submission.idempotency_key
            if key:
                found = _find_submitted(session, submission.tenant, key, submission.request_sha256)
                if found is not None:
                    return found
            self._database.wait_for_turn(session, f"submit {submission.tenant}")
            waiting = session.scalar(
                select(func.count()).where(JobRow.tenant == submission.tenant, JobRow.state == JobState.QUEUED)
            )
            if (waiting or 0) >= max_queued:
                raise ResourceExhaustedError(
                    f"This tenant has {waiting} of {max_queued} jobs queued; submit again when some have ended.",
                    reason="QUEUE_FULL",
                    retry_delay_seconds=retry_delay_seconds,
                )
            self._training_sets.use(session, submission.tenant, submission.order.training_set_id)
            row = JobRow(
                job_id=f"job-{secrets.token_hex(8)}",
                tenant=submission.tenant,
                state=JobState.QUEUED,
                concept_name=submission.order.concept_name,
                method=submission.order.method,
                order=submission.order.model_dump(mode="json"),
                idempotency_key=key or None,
                request_sha256=submission.request_sha256,
                create_time=now,
                queue_time=now,
                training_set_id=submission.order.training_set_id,
                priority=submission.priority,
                deadline_time=submission.deadline_time,
                pack_key=submission.order.pack_key,
            )
            session.add(row)
            session.flush()
            return row.to_job()


def _row(session: Session, tenant: str, job_id: str) -> JobRow:
    row = None
    if _JOB_ID.fullmatch(job_id):  # PostgreSQL does not take every text
        row = session.scalar(select(JobRow).where(JobRow.tenant == tenant, JobRow.job_id == job_id))
    if row is None:
        raise NotFoundError(
            f"job_id: there is no job {job_id[:80]!r}; ListJobs lists those there are.", reason="JOB_NOT_FOUND"
        )
    return row


def _find_submitted(session: Session, tenant: str, key: str, request_sha256: str) -> Job | None:
    row = session.scalar(select(JobRow).where(JobRow.tenant == tenant, JobRow.idempotency_key == key))
    if row is None:
        return None
    if row.request_sha256 != request_sha256:
        raise AlreadyExistsError(
            f"idempotency_key: {key!r} was used for {row.job_id} with different content; use a new key.",
            reason="IDEMPOTENCY_KEY_REUSED",
        )
    return row.to_job()
