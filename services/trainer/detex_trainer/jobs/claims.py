"""What servers do with jobs: claim, keep, record, end.

A claim is a lease: other servers take the job for lost when it has not been renewed in time. Every transition here is
one UPDATE that names the state, the owner and the number of the claim that it starts from, so a server that lost a job
without noticing changes nothing.
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session

from detex_trainer.domain.progress import JobProgress
from detex_trainer.jobs.claim import HeldJob, JobClaim, PackLimits
from detex_trainer.jobs.clock import utc_now
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.queue_order import (
    next_companions,
    next_queued,
    waiting_of_pack_key,
    waiting_without_worker,
)
from detex_trainer.jobs.record import Job, JobFailure, PreviewRecord
from detex_trainer.jobs.state import JobState
from detex_trainer.jobs.tables import PROGRESS, JobRow, PreviewRow
from detex_trainer.jobs.transitions import UNHELD, cause_to_end, changed, ended, expired, held, interrupted, storable

_TRAINER_DIED = JobFailure("TRAINER_DIED", "The trainer stopped while this job ran.")


class JobClaims:
    """The jobs that servers hold; each method is one transaction."""

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        max_running_per_tenant: int = 0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Nothing is claimed yet.

        Args:
            database: The jobs.
            lease_seconds: How long a job stays with a server that does not renew its lease.
            max_running_per_tenant: Jobs of one tenant that run at a time, over all servers; 0 sets no limit.
            now: The clock.
        """
        self._database = database
        self._max_running = max_running_per_tenant
        self._lease = timedelta(seconds=lease_seconds)
        self._now = now

    def claim(self, owner: str) -> JobClaim | None:
        """Take the job that is next; see `claim_pack`."""
        return next(iter(self.claim_pack(owner, PackLimits())), None)

    def claim_pack(self, owner: str, limits: PackLimits) -> tuple[JobClaim, ...]:
        """Take the job that is next, and with it what waits and can be trained together with it.

        Next is a job of the tenant with the fewest running jobs, then of the one served longest ago; of one tenant the
        job of the highest priority, then the oldest. Tenants at their limit wait, and so do jobs that pause before they
        are retried. The rest of the pack is chosen by the same rules, see `next_companions`.

        Args:
            owner: The server, by a name that no other server and no earlier life of it has.
            limits: How many.

        Returns:
            The claims, of one pack id; none where no job can be run.
        """
        now = self._now()
        with self._database.writing() as session:
            if self._max_running or limits.most > 1:
                self._database.wait_for_turn(session, "claim")
            first = self._take_one(session, next_queued(now, self._max_running), owner, now, None, limits)
            if first is None:
                return ()
            if first.pack_id != _fresh_pack_id(first.job.job_id, first.number):
                return (first, *self._left_of_pack(session, first, owner, now))
            return (first, *self._companions(session, first, owner, now, limits))

    def _left_of_pack(self, session: Session, first: JobClaim, owner: str, now: datetime) -> list[JobClaim]:
        """The other jobs of a worker whose server was lost."""
        query = select(JobRow).where(JobRow.pack_id == first.pack_id, JobRow.state == JobState.QUEUED)
        return [
            JobClaim(row.to_job(), owner, row.claims, first.pack_id)
            for row in session.scalars(query.order_by(JobRow.sequence)).all()
            if self._take(session, row, JobRow.state == JobState.QUEUED, owner, now, _begun(now, first.pack_id))
        ]

    def _companions(
        self, session: Session, first: JobClaim, owner: str, now: datetime, limits: PackLimits
    ) -> list[JobClaim]:
        job = first.job
        if not job.order.pack_key or limits.most == 1 or 1 < job.attempts >= limits.max_attempts:
            return []
        waiting = session.scalar(waiting_of_pack_key(now, job.order.pack_key)) or 0
        most = min(limits.most, -(-(waiting + 1) // max(1, limits.idle_workers)))
        query = next_companions(now, self._max_running, job.order.pack_key, limits.max_attempts)
        claims: list[JobClaim] = []
        while len(claims) + 1 < most:
            claim = self._take_one(session, query, owner, now, first.pack_id, limits)
            if claim is None:
                break
            claims.append(claim)
        return claims

    def _take_one(
        self,
        session: Session,
        query: Select[JobRow],
        owner: str,
        now: datetime,
        pack_id: str | None,
        limits: PackLimits,
    ) -> JobClaim | None:
        for row in session.scalars(query).all():
            followed = row.pack_id if limits.follows_workers else None
            name = pack_id or followed or _fresh_pack_id(row.job_id, row.claims + 1)
            if self._take(session, row, JobRow.state == JobState.QUEUED, owner, now, _begun(now, name)):
                return JobClaim(row.to_job(), owner, row.claims, name)
        return None

    def is_waited_for(self) -> bool:
        """Whether a tenant that has no job running has one that could."""
        with self._database.reading() as session:
            return session.scalar(waiting_without_worker(self._now())) is not None

    def claim_to_end(self, owner: str, *, max_attempts: int) -> JobClaim | None:
        """Take a job that no server works on and that is not to be run (again).

        These are jobs that were to be cancelled, whose deadline has passed, or whose servers have died as often as a
        job is tried. Whoever takes one must find out whether an earlier attempt has published, and end it.

        Args:
            owner: The server.
            max_attempts: How often a job is tried.
        """
        now = self._now()
        queued = JobRow.state == JobState.QUEUED
        left = expired(now)
        unwanted = JobRow.cancel_requested | (JobRow.deadline_time < now)
        guard = (queued & unwanted) | (left & (unwanted | (JobRow.attempts >= max_attempts)))
        with self._database.writing() as session:
            for row in session.scalars(select(JobRow).where(guard).order_by(JobRow.sequence).limit(8)):
                if self._take(session, row, guard, owner, now, {}):
                    return JobClaim(row.to_job(), owner, row.claims, row.pack_id or row.job_id, cause_to_end(row, now))
        return None

    def renew(self, owner: str, job_ids: Collection[str]) -> tuple[HeldJob, ...]:
        """Move on the leases of the jobs that a server works on; a job of its that it forgot is left to expire.

        Returns:
            Those of the jobs that the server still holds.
        """
        now = self._now()
        mine = (JobRow.state == JobState.RUNNING) & (JobRow.lease_owner == owner) & JobRow.job_id.in_(sorted(job_ids))
        with self._database.writing() as session:
            session.execute(update(JobRow).where(mine).values(lease_expire_time=now + self._lease))
            columns = (JobRow.job_id, JobRow.claims, JobRow.cancel_requested, JobRow.deadline_time)
            return tuple(
                HeldJob(job_id, number, cancelled, deadline is not None and deadline < now)
                for job_id, number, cancelled, deadline in session.execute(select(*columns).where(mine))
            )

    def release_expired(self, *, max_attempts: int) -> tuple[Job, ...]:
        """Put jobs of servers that no longer renew them back into the queue; those to be ended are left where they are.

        Args:
            max_attempts: How often a job is tried.

        Returns:
            The jobs as they stand now.
        """
        now = self._now()
        wanted = ~JobRow.cancel_requested & (JobRow.deadline_time.is_(None) | (JobRow.deadline_time >= now))
        lost = expired(now) & wanted & (JobRow.attempts < max_attempts)
        values = {
            "state": JobState.QUEUED,
            "queue_time": now,
            "progress": None,
            **UNHELD,
            **interrupted(_TRAINER_DIED),
        }
        released = []
        with self._database.writing() as session:
            for row in session.scalars(select(JobRow).where(lost)):
                guard = (JobRow.sequence == row.sequence) & (JobRow.claims == row.claims) & lost
                if changed(session.execute(update(JobRow).where(guard).values(**values))):
                    session.refresh(row)
                    released.append(row.to_job())
        return tuple(released)

    def record_progress(self, claim: JobClaim, progress: JobProgress) -> bool:
        """Keep the latest progress; False where the claim is lost."""
        return self._change(claim, {"progress": PROGRESS.dump_python(progress, mode="json")})

    def record_preview(self, claim: JobClaim, preview: PreviewRecord) -> bool:
        """Keep a preview, in place of one of the same step from an earlier attempt; False where the claim is lost."""
        with self._database.writing() as session:
            if session.scalar(select(JobRow.sequence).where(held(claim))) is None:
                return False
            session.merge(
                PreviewRow(
                    sequence=claim.job.sequence,
                    step=preview.step,
                    prompt=storable(preview.prompt, 1_000),
                    key=preview.key,
                )
            )
            return True

    def succeed(self, claim: JobClaim, concept_version: str) -> bool:
        """End a job whose concept is published; False where the claim is lost."""
        return self._change(claim, {**ended(JobState.SUCCEEDED, self._now()), "concept_version": concept_version})

    def fail(self, claim: JobClaim, failure: JobFailure) -> bool:
        """End a job without a concept; False where the claim is lost."""
        return self._change(claim, ended(JobState.FAILED, self._now(), failure))

    def cancel(self, claim: JobClaim) -> bool:
        """End a job whose worker has stopped because its caller asked for it; False where the claim is lost."""
        return self._change(claim, ended(JobState.CANCELLED, self._now()))

    def requeue(
        self,
        claim: JobClaim,
        *,
        cause: JobFailure | None = None,
        is_outage: bool = False,
        pause_seconds: float = 0.0,
        run_seconds: float = 0.0,
    ) -> bool:
        """Put a job back where it was in the queue; False where the claim is lost.

        Args:
            claim: The claim.
            cause: What went wrong, which counts as an attempt; None where the job was stopped on purpose.
            is_outage: Whether something that jobs need did not answer: that counts as an outage, not as an attempt.
            pause_seconds: How long it waits before it may be taken again.
            run_seconds: How long a worker has had it.
        """
        now = self._now()
        values: dict[str, Any] = {"state": JobState.QUEUED, "queue_time": now, "progress": None, "pack_id": None}
        if run_seconds:
            values["run_seconds"] = JobRow.run_seconds + run_seconds
        if cause is None or is_outage:
            values["attempts"] = JobRow.attempts - 1
        if is_outage:
            values["outages"] = JobRow.outages + 1
        if cause is not None:
            values |= interrupted(cause)
        if pause_seconds:
            values["ready_time"] = now + timedelta(seconds=pause_seconds)
        return self._change(claim, values | UNHELD)

    def _take(
        self,
        session: Session,
        row: JobRow,
        guard: ColumnElement[bool],
        owner: str,
        now: datetime,
        values: dict[str, Any],
    ) -> bool:
        taken = session.execute(
            update(JobRow)
            .where(JobRow.sequence == row.sequence, guard)
            .values(
                state=JobState.RUNNING,
                claim_time=now,
                claims=JobRow.claims + 1,
                progress=None,
                ready_time=None,
                lease_owner=owner,
                lease_expire_time=now + self._lease,
                **values,
            )
        )
        if changed(taken):
            session.refresh(row)
            return True
        return False

    def _change(self, claim: JobClaim, values: dict[str, Any]) -> bool:
        with self._database.writing() as session:
            return changed(session.execute(update(JobRow).where(held(claim)).values(**values)))


def _begun(now: datetime, pack_id: str) -> dict[str, Any]:
    return {
        "start_time": func.coalesce(JobRow.start_time, now),
        "attempts": JobRow.attempts + 1,
        "pack_id": pack_id,
    }


def _fresh_pack_id(job_id: str, number: int) -> str:
    return f"{job_id}-{number}"
