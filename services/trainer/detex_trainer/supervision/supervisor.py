"""The reconcile loop: what the table says should run against what runs here."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from detex_core.errors import DetexError
from detex_core.logging import log_fields
from detex_core.object_store import ObjectStore
from detex_core.tenancy import tenant_scope
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.executors import Executor
from detex_trainer.jobs import Job, JobClaim, JobClaims, PackLimits
from detex_trainer.metrics import TrainerMetrics
from detex_trainer.supervision.attendance import Attendance
from detex_trainer.supervision.claim_threads import ClaimThreads
from detex_trainer.supervision.ending import JobEndings
from detex_trainer.supervision.feed import JobFeed
from detex_trainer.supervision.job_attendance import Intention, JobCare
from detex_trainer.supervision.store_watch import StoreWatch

_MAX_ENDINGS = 8
_LAST_WRITES_SECONDS = 3.0
_PATIENCE_SHARE = 0.1
"""A turn may be longer by this share of it where its jobs say that they end within that."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SupervisorPolicy:
    """How jobs are run.

    Attributes:
        worker_count: Workers that run at a time.
        max_pack_size: Jobs that one worker trains together.
        max_attempts: How often a job is started before a worker that dies counts as the job's failure.
        max_outages: How often a job is retried because something that it needs does not answer.
        lease_seconds: How long other trainers leave a job to this one without hearing from it.
        reconcile_interval_seconds: Longest time between two looks.
        stop_grace_seconds: How long a worker may take to stop.
        turn_seconds: How long a worker trains before it makes room for a tenant that has none; 0 forever.
        silence_seconds: A worker of which nothing is heard for so long is ended; 0 waits forever.
        job_seconds: How long workers may have a job before it is ended; 0 sets no limit.
    """

    worker_count: int
    max_pack_size: int
    max_attempts: int
    max_outages: int
    lease_seconds: float
    reconcile_interval_seconds: float
    stop_grace_seconds: float
    turn_seconds: float
    silence_seconds: float = 0.0
    job_seconds: float = 0.0


class Supervisor:
    """Takes queued jobs and sees them through; for use within one event loop."""

    def __init__(
        self,
        owner: str,
        claims: JobClaims,
        executor: Executor,
        store: ObjectStore,
        write_spec: Callable[[Job], JobSpec],
        feed: JobFeed,
        metrics: TrainerMetrics,
        policy: SupervisorPolicy,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing runs yet.

        Args:
            owner: Name of this trainer's life, unlike any other's.
            claims: The jobs that trainers hold.
            executor: Where workers run.
            store: Where jobs publish.
            write_spec: Makes a job spec of a job; raises DetexError where the job can no longer run.
            feed: Told of each change.
            metrics: Counts and times.
            policy: How jobs are run.
            on_end: Called when a job has ended.
        """
        self._on_end = on_end
        self._owner = owner
        self._claims = claims
        self._executor = executor
        self._write_spec = write_spec
        self._feed = feed
        self._metrics = metrics
        self._policy = policy
        self._attendances: dict[asyncio.Task[None], Attendance] = {}
        self._ending: dict[asyncio.Task[None], JobClaim] = {}
        self._wake = asyncio.Event()
        self._draining = False
        self._finished = asyncio.Event()
        self._renewed = time.monotonic()
        self._store = StoreWatch(store, self.wake)
        self._threads = ClaimThreads(1 + policy.worker_count)
        self._care = JobCare(
            claims,
            self._threads,
            feed,
            metrics,
            JobEndings(claims, self._threads, store, feed, metrics, on_end),
            max_attempts=policy.max_attempts,
            max_outages=policy.max_outages,
            silence_seconds=policy.silence_seconds,
        )
        metrics.checkpoint_age.set_function(self._checkpoint_age_seconds)

    def wake(self) -> None:
        """Look at once: a job was submitted."""
        self._wake.set()

    def cancel_requested(self, job_id: str) -> None:
        """Stop the worker of a job now, if it runs here and was asked to stop; tell its watchers."""
        self._feed.publish(job_id)
        self._on_end()  # one that never ran has ended already
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until `drain` is called and all workers have ended."""
        while not self._draining or self._attendances or self._ending:
            self._wake.clear()
            try:
                await self._reconcile()
            except DetexError as error:
                _log.warning("jobs not reconciled: %s", error.message)
                self._keep_to_leases()
            except Exception:
                # One job that cannot be read must not keep all others from running.
                _log.exception("jobs not reconciled")
                self._keep_to_leases()
            try:
                async with asyncio.timeout(self._policy.reconcile_interval_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue
        self._threads.close()
        self._finished.set()

    async def drain(self, grace_seconds: float) -> None:
        """Take no more jobs, let those end that can within the grace time, put the others back into the queue.

        Returns some seconds after the grace time at the latest, also where nothing can be written any more.

        Args:
            grace_seconds: Time until all workers have ended.
        """
        self._draining = True
        grace = self._policy.stop_grace_seconds
        deadline = time.monotonic() + grace_seconds - grace
        for attendance in self._attendances.values():
            time_left = attendance.time_left_seconds
            if time_left is None or time.monotonic() + time_left > deadline:
                attendance.stop_all(Intention.REQUEUE)
        if self._attendances:
            await asyncio.wait(self._attendances, timeout=max(0.0, deadline - time.monotonic()))
        for attendance in self._attendances.values():
            attendance.stop_all(Intention.REQUEUE)
        self.wake()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic()) + grace + _LAST_WRITES_SECONDS):
                await self._finished.wait()
        except TimeoutError:
            # The leases of these jobs expire, and another trainer, or this one's next life, takes them.
            _log.error("what became of %d jobs is not recorded", self._jobs_at_hand())
            for task in (*self._attendances, *self._ending):
                task.cancel()
            self.wake()
            await self._finished.wait()

    async def _reconcile(self) -> None:
        await self._renew()
        await self._release_expired()
        await self._end_unwanted()
        while not self._draining and len(self._attendances) < self._policy.worker_count:
            if not self._store.is_there():
                return  # whatever began now would only fail
            limits = PackLimits(
                most=self._policy.max_pack_size,
                idle_workers=self._policy.worker_count - len(self._attendances),
                max_attempts=self._policy.max_attempts,
                follows_workers=self._executor.outlives_trainer,
            )
            claims = await self._threads.run(self._claims.claim_pack, self._owner, limits)
            if not claims:
                return
            self._attend(claims)
        if not self._draining and self._policy.turn_seconds:
            await self._end_turn()

    async def _end_turn(self) -> None:
        """Have the worker that has trained longest make room, where its turn is over and a tenant without one waits."""
        attendances = list(self._attendances.values())
        if any(attendance.is_stopping for attendance in attendances):
            return  # there will be room
        longest = max(attendances, key=lambda attendance: attendance.training_seconds)
        beyond = longest.training_seconds - self._policy.turn_seconds
        left, patience = longest.time_left_seconds, self._policy.turn_seconds * _PATIENCE_SHARE
        ends_soon = left is not None and left < patience
        if beyond < (patience if ends_soon else 0):
            return
        if await self._threads.run(self._claims.is_waited_for):
            longest.stop_all(Intention.MAKE_ROOM)

    async def _end_unwanted(self) -> None:
        # They take no worker, so they need not wait for one; few at a time, for each waits for the object store.
        while not self._draining and len(self._ending) < _MAX_ENDINGS:
            claim = await self._threads.run(
                self._claims.claim_to_end, self._owner, max_attempts=self._policy.max_attempts
            )
            if claim is None or claim.to_end is None:
                return
            _log.info("job %s of %s is ended: %s", claim.job.job_id, claim.job.tenant, claim.to_end.message)
            self._feed.publish(claim.job.job_id)
            ending = self._care.endings.end(claim, claim.to_end)
            task = asyncio.create_task(ending, name=f"end of {claim.job.job_id}")
            self._ending[task] = claim
            task.add_done_callback(self._ended)

    async def _renew(self) -> None:
        # Jobs that begin while the table answers are left for the next look.
        attended = [(attendance, job) for attendance in self._attendances.values() for job in attendance.jobs]
        job_ids = [job.job_id for _, job in attended] + [claim.job.job_id for claim in self._ending.values()]
        renewed = await self._threads.run(self._claims.renew, self._owner, job_ids) if job_ids else ()
        found = {(job.job_id, job.number): job for job in renewed}
        self._renewed = time.monotonic()
        for attendance, job in attended:
            held = found.get((job.job_id, job.claim.number))
            if held is None:
                attendance.stop(job, Intention.ABANDON)
            elif held.cancel_requested:
                attendance.stop(job, Intention.CANCEL)
            elif held.deadline_passed:
                attendance.stop(job, Intention.DEADLINE)
            elif 0 < self._policy.job_seconds < job.run_seconds and not job.is_publishing:
                attendance.stop(job, Intention.TIME_LIMIT)

    async def _release_expired(self) -> None:
        released = await self._threads.run(self._claims.release_expired, max_attempts=self._policy.max_attempts)
        for job in released:
            with tenant_scope(job.tenant), log_fields(job_id=job.job_id):
                _log.warning("job %s was left by a trainer that is gone; it is %s now", job.job_id, job.state)
            self._metrics.requeued.labels("trainer_died").inc()
            self._feed.publish(job.job_id)

    def _attend(self, claims: Sequence[JobClaim]) -> None:
        for claim in claims:
            job = claim.job
            with tenant_scope(job.tenant), log_fields(job_id=job.job_id, pack_id=claim.pack_id):
                _log.info("job %s of %s begins, attempt %d, in %s", job.job_id, job.tenant, job.attempts, claim.pack_id)
            waited = (datetime.now(UTC) - job.queue_time).total_seconds()
            self._metrics.queue_wait.labels(job.order.method).observe(max(0.0, waited))
        attendance = Attendance(claims, self._executor, self._care)
        if self._draining:
            attendance.stop_all(Intention.REQUEUE)
        name = f"attendance of {claims[0].pack_id}"
        task = asyncio.create_task(attendance.see_through(self._write_spec), name=name)
        self._attendances[task] = attendance
        self._metrics.workers.set(len(self._attendances))
        task.add_done_callback(self._attended)

    def _attended(self, task: asyncio.Task[None]) -> None:
        del self._attendances[task]
        self._metrics.workers.set(len(self._attendances))
        self._tell_of_defects(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._ending[task]
        self._tell_of_defects(task)

    def _tell_of_defects(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s failed", task.get_name(), exc_info=task.exception())
        self.wake()

    def _jobs_at_hand(self) -> int:
        return sum(len(attendance.jobs) for attendance in self._attendances.values()) + len(self._ending)

    def _checkpoint_age_seconds(self) -> float:
        jobs = [job for attendance in list(self._attendances.values()) for job in attendance.jobs if job.is_at_work]
        return max((job.checkpoint_age_seconds for job in jobs), default=0.0)

    def _keep_to_leases(self) -> None:
        """Kill workers whose jobs another trainer may have taken by now."""
        if time.monotonic() - self._renewed > self._policy.lease_seconds:
            for attendance in self._attendances.values():
                attendance.stop_all(Intention.ABANDON)
