"""What servers do with jobs: claim, keep, record, end.

A claim is a lease: other servers take the job for lost when it has not been renewed in time. Every transition here is
one UPDATE that names the state, the owner and the number of the claim that it starts from, so a server that lost a job
without noticing changes nothing.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update

from detex_trainer.jobs.database import Database
from detex_trainer.jobs.record import Job, JobFailure, PreviewRecord
from detex_trainer.jobs.repository import utc_now
from detex_trainer.jobs.state import JobState
from detex_trainer.jobs.tables import PROGRESS, JobRow, PreviewRow
from detex_trainer.progress import JobProgress

_UNHELD: dict[str, Any] = {"lease_owner": None, "lease_expire_time": None}


@dataclass(frozen=True)
class JobClaim:
    """A job held by one server.

    Attributes:
        job: The job as it stood when it was claimed.
        owner: The server.
        number: How often the job was claimed before and with this claim.
    """

    job: Job
    owner: str
    number: int


@dataclass(frozen=True)
class HeldJob:
    """A claim as found when it was renewed.

    Attributes:
        job_id: Id of the job.
        number: Number of the claim.
        cancel_requested: True once the caller asked the job to stop.
    """

    job_id: str
    number: int
    cancel_requested: bool


class JobClaims:
    """The jobs that servers hold; each method is one transaction."""

    def __init__(self, database: Database, *, lease_seconds: float, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._lease = timedelta(seconds=lease_seconds)
        self._now = now

    def claim(self, owner: str) -> JobClaim | None:
        """Take the job that is next: of the tenant with the fewest running jobs, then of the one served longest ago.

        Args:
            owner: The server, by a name that no other server and no earlier life of it has.

        Returns:
            The claim, or None where no job waits.
        """
        now = self._now()
        with self._database.writing() as session:
            for row in session.scalars(_next_queued()):
                claimed = session.execute(
                    update(JobRow)
                    .where(JobRow.sequence == row.sequence, JobRow.state == JobState.QUEUED)
                    .values(
                        state=JobState.RUNNING,
                        claim_time=now,
                        start_time=func.coalesce(JobRow.start_time, now),
                        attempts=JobRow.attempts + 1,
                        claims=JobRow.claims + 1,
                        progress=None,
                        lease_owner=owner,
                        lease_expire_time=now + self._lease,
                    )
                )
                if _changed(claimed):
                    session.refresh(row)
                    return JobClaim(row.to_job(), owner, row.claims)
        return None

    def renew(self, owner: str, job_ids: Collection[str]) -> tuple[HeldJob, ...]:
        """Move on the leases of the jobs that a server works on; a job of its that it forgot is left to expire.

        Returns:
            Those of the jobs that the server still holds.
        """
        held = (JobRow.state == JobState.RUNNING) & (JobRow.lease_owner == owner) & JobRow.job_id.in_(sorted(job_ids))
        with self._database.writing() as session:
            session.execute(update(JobRow).where(held).values(lease_expire_time=self._now() + self._lease))
            rows = session.execute(select(JobRow.job_id, JobRow.claims, JobRow.cancel_requested).where(held))
            return tuple(HeldJob(job_id, number, cancelled) for job_id, number, cancelled in rows)

    def release_expired(self, *, max_attempts: int) -> tuple[Job, ...]:
        """Take jobs from servers that no longer renew them.

        They go back to the queue; those that were to be cancelled or have been tried often enough end.

        Args:
            max_attempts: How often a job is tried.

        Returns:
            The jobs as they stand now.
        """
        now = self._now()
        expired = (JobRow.state == JobState.RUNNING) & (JobRow.lease_expire_time < now)
        released = []
        with self._database.writing() as session:
            for row in session.scalars(select(JobRow).where(expired)):
                if row.cancel_requested:
                    values = _ended(JobState.CANCELLED, now)
                elif row.attempts >= max_attempts:
                    message = f"The trainer stopped {row.attempts} times while this job ran; submit it again."
                    values = _ended(JobState.FAILED, now, JobFailure("TRAINER_DIED", message))
                else:
                    values = {"state": JobState.QUEUED, "queue_time": now, "progress": None, **_UNHELD}
                guard = (JobRow.sequence == row.sequence) & (JobRow.claims == row.claims) & expired
                if _changed(session.execute(update(JobRow).where(guard).values(**values))):
                    session.refresh(row)
                    released.append(row.to_job())
        return tuple(released)

    def record_progress(self, claim: JobClaim, progress: JobProgress) -> bool:
        """Keep the latest progress; False where the claim is lost."""
        return self._change(claim, {"progress": PROGRESS.dump_python(progress, mode="json")})

    def record_preview(self, claim: JobClaim, preview: PreviewRecord) -> bool:
        """Keep a preview, in place of one of the same step from an earlier attempt; False where the claim is lost."""
        with self._database.writing() as session:
            if session.scalar(select(JobRow.sequence).where(_held(claim))) is None:
                return False
            session.merge(
                PreviewRow(
                    sequence=claim.job.sequence, step=preview.step, prompt=preview.prompt[:1_000], key=preview.key
                )
            )
            return True

    def succeed(self, claim: JobClaim, concept_version: str) -> bool:
        """End a job whose concept is published; False where the claim is lost."""
        return self._change(claim, {**_ended(JobState.SUCCEEDED, self._now()), "concept_version": concept_version})

    def fail(self, claim: JobClaim, failure: JobFailure) -> bool:
        """End a job without a concept; False where the claim is lost."""
        return self._change(claim, _ended(JobState.FAILED, self._now(), failure))

    def cancel(self, claim: JobClaim) -> bool:
        """End a job whose worker has stopped because its caller asked for it; False where the claim is lost."""
        return self._change(claim, _ended(JobState.CANCELLED, self._now()))

    def requeue(self, claim: JobClaim, *, counts_as_attempt: bool) -> bool:
        """Put a job back where it was in the queue; False where the claim is lost.

        Args:
            claim: The claim.
            counts_as_attempt: False where the job was stopped on purpose and is not to blame.
        """
        attempts = JobRow.attempts if counts_as_attempt else JobRow.attempts - 1
        values = {"state": JobState.QUEUED, "queue_time": self._now(), "progress": None, "attempts": attempts}
        return self._change(claim, values | _UNHELD)

    def _change(self, claim: JobClaim, values: dict[str, Any]) -> bool:
        with self._database.writing() as session:
            return _changed(session.execute(update(JobRow).where(_held(claim)).values(**values)))


def _held(claim: JobClaim) -> ColumnElement[bool]:
    return (
        (JobRow.sequence == claim.job.sequence)
        & (JobRow.state == JobState.RUNNING)
        & (JobRow.lease_owner == claim.owner)
        & (JobRow.claims == claim.number)
    )


def _ended(state: JobState, now: datetime, failure: JobFailure | None = None) -> dict[str, Any]:
    values = {"state": state, "end_time": now, **_UNHELD}
    if failure is not None:
        values |= {"failure_reason": failure.reason[:64], "failure_message": failure.message[:2_000]}
    return values


def _next_queued() -> Select[JobRow]:
    """The oldest queued job of each tenant, in the order in which tenants are served."""
    queued = JobRow.state == JobState.QUEUED
    oldest = select(func.min(JobRow.sequence).label("sequence")).where(queued).group_by(JobRow.tenant).subquery()
    running = (
        select(JobRow.tenant, func.count().label("jobs"))
        .where(JobRow.state == JobState.RUNNING)
        .group_by(JobRow.tenant)
        .subquery()
    )
    served = select(JobRow.tenant, func.max(JobRow.claim_time).label("claim_time")).group_by(JobRow.tenant).subquery()
    return (
        select(JobRow)
        .join(oldest, oldest.c.sequence == JobRow.sequence)
        .outerjoin(running, running.c.tenant == JobRow.tenant)
        .outerjoin(served, served.c.tenant == JobRow.tenant)
        .order_by(func.coalesce(running.c.jobs, 0), served.c.claim_time.nulls_first(), JobRow.sequence)
    )


def _changed(result: Any) -> bool:
    return bool(result.rowcount == 1)
