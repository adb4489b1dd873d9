"""Sees one claimed job through in the hands of a worker: records what is reported of it, and what became of it."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from detex_core.errors import DetexError
from detex_core.logging import log_fields
from detex_core.tenancy import tenant_scope
from detex_trainer.domain.failures import OUT_OF_MEMORY, TIME_LIMIT, WORKER_SILENT
from detex_trainer.domain.progress import JobPhase, JobProgress
from detex_trainer.executors import WorkerExit
from detex_trainer.jobs import CANCELLED, JobClaim, JobClaims, JobFailure, PreviewRecord, deadline_passed
from detex_trainer.metrics import TrainerMetrics
from detex_trainer.supervision.claim_threads import ClaimThreads
from detex_trainer.supervision.ending import JobEndings
from detex_trainer.supervision.feed import JobFeed
from detex_trainer.worker.events import (
    CheckpointEvent,
    ExitCode,
    FailedEvent,
    FinalEvent,
    PreviewEvent,
    ProgressEvent,
    ReturnedEvent,
    SucceededEvent,
    WorkerEvent,
)

_CANCELLED = JobFailure(CANCELLED, "The caller cancelled it.")
_LONGEST_PAUSE_SECONDS = 60.0
_ADVICE = {
    OUT_OF_MEMORY: "Submit the job again with a smaller batch_size or resolution.",
    "WORKER_DIED": (
        "A common cause is running out of memory: submit the job again with a smaller batch_size or resolution."
    ),
    WORKER_SILENT: "Submit the job again; if it recurs, its photos or its base model take too long to read.",
}

_log = logging.getLogger(__name__)


class Intention(Enum):
    """Why a job is stopped."""

    CANCEL = "its caller asked for it"
    DEADLINE = "its deadline has passed"
    TIME_LIMIT = "workers have had it for as long as a job may take"
    REQUEUE = "this trainer stops"
    MAKE_ROOM = "its turn is over, and a tenant without a worker waits"
    ABANDON = "the job is no longer held by this trainer"


@dataclass(frozen=True)
class JobCare:
    """What is needed to see jobs through.

    Attributes:
        claims: The jobs that trainers hold.
        threads: Threads for the job table.
        feed: Told of each change.
        metrics: Counts and times.
        endings: Records what became of jobs.
        max_attempts: How often a job is started before a worker that dies counts as the job's failure.
        max_outages: How often a job is retried because something that it needs does not answer.
        silence_seconds: A worker of which nothing is heard for so long is ended; 0 waits forever.
    """

    claims: JobClaims
    threads: ClaimThreads
    feed: JobFeed
    metrics: TrainerMetrics
    endings: JobEndings
    max_attempts: int
    max_outages: int
    silence_seconds: float = 0.0


class JobAttendance:
    """One claim.

    Attributes:
        claim: The claim.
        intention: Why the job is to be stopped; None while it is not.
        final: What the worker said last of it; None before.
        is_over: Whether what becomes of it is decided, and nothing that is reported changes that.
        shares_worker: Whether its worker was started with others too, any of which may be to blame for what becomes of
            all; then a job is tried once more beyond the usual number, alone.
    """

    def __init__(self, claim: JobClaim, care: JobCare) -> None:
        self.claim = claim
        self.intention: Intention | None = None
        self.final: FinalEvent | None = None
        self.is_over = False
        self.shares_worker = False
        self._care = care
        self._progress: JobProgress | None = None
        self._last_trained: JobProgress | None = None
        self._began = self._phase_began = self._kept = time.monotonic()

    @property
    def job_id(self) -> str:
        """Id of the job."""
        return self.claim.job.job_id

    @property
    def is_at_work(self) -> bool:
        """Whether the worker has not said its last word of it, and is still to."""
        return not self.is_over and self.final is None

    @property
    def time_left_seconds(self) -> float | None:
        """Estimate of the time to the end of the job; None while unknown."""
        return None if self._progress is None else self._progress.time_left_seconds

    @property
    def checkpoint_age_seconds(self) -> float:
        """Time for which training would be lost with the worker: since the last checkpoint, or since the claim."""
        return time.monotonic() - self._kept

    @property
    def run_seconds(self) -> float:
        """How long workers have had the job, in all attempts."""
        return self.claim.job.run_seconds + time.monotonic() - self._began

    @property
    def is_publishing(self) -> bool:
        """Whether it is trained, and only has to be published."""
        return self._progress is not None and self._progress.phase is JobPhase.PUBLISHING

    def intend(self, intention: Intention) -> None:
        """Note why it is to be stopped; the first intention decides what becomes of it."""
        if self.intention is None and not self.is_over:
            _log.info("stopping job %s: %s", self.job_id, intention.value)
            self.intention = intention

    async def take(self, event: WorkerEvent) -> None:
        """Record what is reported of it."""
        care = self._care
        match event:
            case ProgressEvent():
                self._measure(event.progress)
                await self._record(lambda: care.claims.record_progress(self.claim, event.progress))
            case PreviewEvent():
                preview = PreviewRecord(event.step, event.prompt, event.key)
                await self._record(lambda: care.claims.record_preview(self.claim, preview))
            case CheckpointEvent():
                self._kept = time.monotonic()
                care.metrics.checkpoint.observe(event.seconds)
            case _:
                self.final = event

    async def conclude(self, ended: WorkerExit) -> None:
        """Decide what becomes of it; to be called once, after `is_over` was set.

        Args:
            ended: How its worker has ended; where that continues with others, an ordered end.
        """
        self._end_phase()
        if self._last_trained is not None:
            self._care.metrics.job_trained(self.claim.job.order.method, self._last_trained)
        job, endings = self.claim.job, self._care.endings
        match self.final, self.intention:
            case SucceededEvent(concept_version=version), _:
                await endings.succeed(self.claim, version)
            case _, Intention.CANCEL:
                await endings.end(self.claim, _CANCELLED)
            case _, Intention.DEADLINE:
                deadline = job.deadline_time
                assert deadline is not None  # noqa: S101 - the reason for the intention
                await endings.end(self.claim, deadline_passed(deadline))
            case _, Intention.TIME_LIMIT:
                await endings.end(self.claim, self._time_limit())
            case FailedEvent() as failed, _:
                _log.warning("job %s failed: %s %s\n%s", job.job_id, failed.reason, failed.message, ended.log_tail)
                await self._conclude_failed(failed)
            case _, Intention.REQUEUE:
                await self._requeue("trainer_stops", None)
            case _, Intention.MAKE_ROOM:
                await self._requeue("turn_over", None)
            case _, Intention.ABANDON:
                return
            case ReturnedEvent(), _:
                await self._requeue("no_room", None)
            case _:
                _log.error("worker of %s %s\n%s", job.job_id, ended.describe(), ended.log_tail)
                await self._conclude_dead(ended)

    @contextmanager
    def log_scope(self) -> Iterator[None]:
        """Have all that is logged within, and by tasks begun within, name the job, its tenant and its pack."""
        claim = self.claim
        with tenant_scope(claim.job.tenant), log_fields(job_id=claim.job.job_id, pack_id=claim.pack_id):
            yield

    async def conclude_unstarted(self, error: DetexError) -> None:
        """Decide what becomes of it where its worker could not be started; to be called as `conclude`."""
        _log.warning("job %s not started: %s", self.job_id, error.message)
        if self.intention is Intention.CANCEL:
            await self._care.endings.end(self.claim, _CANCELLED)
        else:
            failure = JobFailure(error.reason, error.message)
            await self._try_again_or_fail(failure, "not_started", error.retry_delay_seconds)

    async def _record(self, write: Callable[[], bool]) -> None:
        try:
            await self._care.threads.run(write)
        except DetexError as error:
            _log.warning("news of job %s not recorded: %s", self.job_id, error.message)
            return
        self._care.feed.publish(self.job_id)

    def _measure(self, progress: JobProgress) -> None:
        before = self._progress
        if before is None or before.phase is not progress.phase:
            self._end_phase()
        self._progress = progress
        metrics, method = self._care.metrics, self.claim.job.order.method
        if progress.phase is JobPhase.TRAINING:
            last = self._last_trained
            metrics.divergences.labels(method).inc(max(0, progress.returns - (last.returns if last else 0)))
            self._last_trained = progress
        done = progress.step - (before.step if before is not None else 0)
        metrics.steps.labels(method).inc(max(0, done))

    def _end_phase(self) -> None:
        now = time.monotonic()
        if self._progress is not None:
            method = self.claim.job.order.method
            self._care.metrics.phase_ended(method, self._progress.phase, now - self._phase_began)
        self._phase_began = now

    async def _conclude_failed(self, failed: FailedEvent) -> None:
        attempts = self.claim.job.attempts
        if failed.is_shared and (self.shares_worker or attempts < self._care.max_attempts):
            message = f"The pack of jobs trained together failed in attempt {attempts}: {failed.message}"
            await self._requeue("pack_failed", JobFailure(failed.reason, message))
            return
        failure = JobFailure(failed.reason, failed.message)
        await self._try_again_or_fail(failure, "unavailable", failed.retry_delay_seconds)

    async def _try_again_or_fail(self, failure: JobFailure, label: str, retry_delay_seconds: float | None) -> None:
        job = self.claim.job
        if retry_delay_seconds is None or job.outages >= self._care.max_outages:
            await self._care.endings.end(self.claim, failure)
            return
        pause = min(_LONGEST_PAUSE_SECONDS, max(retry_delay_seconds, 2.0**job.outages))
        await self._requeue(label, failure, is_outage=True, pause_seconds=pause)

    async def _conclude_dead(self, ended: WorkerExit) -> None:
        attempts = self.claim.job.attempts
        # What a worker of one job took beyond its limit, it takes again.
        is_hopeless = ended.code == ExitCode.BAD_SPEC or ended.reason == OUT_OF_MEMORY
        reason = ended.reason or "WORKER_DIED"
        if self.shares_worker or (not is_hopeless and attempts < self._care.max_attempts):
            message = f"The worker {ended.describe()} in attempt {attempts}, and the job is retried."
            await self._requeue("worker_died", JobFailure(reason, message))
            return
        message = (
            f"The worker {ended.describe()} before publishing a concept"
            f"{f', in the last of {attempts} attempts' if attempts > 1 else ''}. {_ADVICE.get(reason, '')}"
        )
        await self._care.endings.end(self.claim, JobFailure(reason, message.rstrip()))

    async def _requeue(
        self, label: str, cause: JobFailure | None, *, is_outage: bool = False, pause_seconds: float = 0
    ) -> None:
        await self._care.endings.requeue(
            self.claim,
            label,
            cause,
            is_outage=is_outage,
            pause_seconds=pause_seconds,
            run_seconds=time.monotonic() - self._began,
        )

    def _time_limit(self) -> JobFailure:
        return JobFailure(
            TIME_LIMIT,
            f"The job has been trained for {self.run_seconds:,.0f} seconds, the time limit of this trainer; "
            "submit it again with fewer steps, a smaller batch_size or resolution.",
        )
