"""Sees one claimed job through: starts its worker, records what it reports, ends the job as the worker ended."""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import Enum

from detex_core.errors import DetexError
from detex_trainer.executors import Executor, WorkerExit, WorkerRun
from detex_trainer.job_spec import JobSpec
from detex_trainer.jobs import CANCELLED, Job, JobClaim, JobClaims, JobFailure, PreviewRecord, deadline_passed
from detex_trainer.metrics import TrainerMetrics
from detex_trainer.progress import JobPhase, JobProgress
from detex_trainer.supervisor.claim_threads import ClaimThreads
from detex_trainer.supervisor.ending import JobEndings
from detex_trainer.supervisor.feed import JobFeed
from detex_trainer.worker.events import (
    ExitCode,
    FailedEvent,
    FinalEvent,
    PreviewEvent,
    ProgressEvent,
    SucceededEvent,
    WorkerEvent,
)

_CANCELLED = JobFailure(CANCELLED, "Its caller asked it to stop.")
_LONGEST_PAUSE_SECONDS = 60.0
_LAST_WORD_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Intention(Enum):
    """Why a worker is stopped."""

    CANCEL = "its caller asked for it"
    DEADLINE = "its deadline has passed"
    REQUEUE = "this trainer stops"
    ABANDON = "the job is no longer held by this trainer"


class Attendance:
    """One worker for one claim."""

    def __init__(
        self,
        claim: JobClaim,
        claims: JobClaims,
        threads: ClaimThreads,
        executor: Executor,
        feed: JobFeed,
        metrics: TrainerMetrics,
        endings: JobEndings,
        *,
        max_attempts: int,
        max_outages: int,
    ) -> None:
        self._claim = claim
        self._claims = claims
        self._threads = threads
        self._executor = executor
        self._feed = feed
        self._metrics = metrics
        self._endings = endings
        self._max_attempts = max_attempts
        self._max_outages = max_outages
        self._run: WorkerRun | None = None
        self._intention: Intention | None = None
        self._final: FinalEvent | None = None
        self._over = False
        self._progress: JobProgress | None = None
        self._last_event: ProgressEvent | None = None
        self._last_trained: JobProgress | None = None
        self._phase_began = time.monotonic()

    @property
    def claim(self) -> JobClaim:
        """The claim that is seen through."""
        return self._claim

    @property
    def time_left_seconds(self) -> float | None:
        """Estimate of the time to the end of the job; None while unknown."""
        return None if self._progress is None else self._progress.time_left_seconds

    async def see_through(self, write_spec: Callable[[Job], JobSpec]) -> None:
        """Run the job to its end; raises nothing that the job could bring about."""
        self._feed.publish(self._claim.job.job_id)
        if self._claim.to_end is not None:
            self._over = True
            await self._endings.end(self._claim, self._claim.to_end)
            return
        ended = WorkerExit(ExitCode.REPORTED, "")
        if self._intention is None:
            try:
                self._run = await self._executor.start(write_spec(self._claim.job))
            except DetexError as error:
                _log.warning("job %s not started: %s", self._claim.job.job_id, error.message)
                await self._conclude_unstarted(error)
                return
            ended = await self._follow(self._run)
        self._end_phase()
        self._note_worker()
        self._over = True
        await self._conclude(ended)

    async def _follow(self, run: WorkerRun) -> WorkerExit:
        if self._intention is not None:
            run.stop()
        try:
            async for event in run.events():
                await self._take(event)
                if self._final is not None:
                    break
        finally:
            # Whatever went wrong here, and whatever the worker does after its last word: it may not outlive this.
            ended = await self._end_of(run)
        return ended

    async def _end_of(self, run: WorkerRun) -> WorkerExit:
        if self._final is not None or self._intention is None:
            try:
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    return await run.wait()
            except TimeoutError:
                run.kill()
        return await run.wait()

    def stop(self, intention: Intention) -> None:
        """Ask the worker to stop; the first intention decides what becomes of the job."""
        if self._over:
            return
        if self._intention is None:
            _log.info("stopping job %s: %s", self._claim.job.job_id, intention.value)
            self._intention = intention
        if self._run is not None:
            if intention is Intention.ABANDON:
                self._run.kill()
            else:
                self._run.stop()

    async def _take(self, event: WorkerEvent) -> None:
        match event:
            case ProgressEvent():
                self._measure(event.progress)
                self._last_event = event
                await self._record(lambda: self._claims.record_progress(self._claim, event.progress))
            case PreviewEvent():
                preview = PreviewRecord(event.step, event.prompt, event.key)
                await self._record(lambda: self._claims.record_preview(self._claim, preview))
            case _:
                self._final = event

    async def _record(self, write: Callable[[], bool]) -> None:
        try:
            await self._threads.run(write)
        except DetexError as error:
            _log.warning("news of job %s not recorded: %s", self._claim.job.job_id, error.message)
            return
        self._feed.publish(self._claim.job.job_id)

    def _measure(self, progress: JobProgress) -> None:
        before = self._progress
        if before is None or before.phase is not progress.phase:
            self._end_phase()
        self._progress = progress
        if progress.phase is JobPhase.TRAINING:
            self._last_trained = progress
        done = progress.step - (before.step if before is not None else 0)
        self._metrics.steps.labels(self._claim.job.order.method).inc(max(0, done))

    def _note_worker(self) -> None:
        last = self._last_event
        if last is not None:
            trained = self._last_trained or last.progress
            method = self._claim.job.order.method
            self._metrics.worker_ended(method, trained, last.memory_bytes, last.gpu_memory_bytes)

    def _end_phase(self) -> None:
        now = time.monotonic()
        if self._progress is not None:
            self._metrics.phase_ended(self._claim.job.order.method, self._progress.phase, now - self._phase_began)
        self._phase_began = now

    async def _conclude_unstarted(self, error: DetexError) -> None:
        if self._intention is Intention.CANCEL:
            await self._endings.end(self._claim, _CANCELLED)
        else:
            await self._try_again_or_fail(
                JobFailure(error.reason, error.message), "not_started", error.retry_delay_seconds
            )

    async def _conclude(self, ended: WorkerExit) -> None:
        job = self._claim.job
        match self._final, self._intention:
            case SucceededEvent(concept_version=version), _:
                await self._endings.succeed(self._claim, version)
            case _, Intention.CANCEL:
                await self._endings.end(self._claim, _CANCELLED)
            case _, Intention.DEADLINE:
                deadline = job.deadline_time
                assert deadline is not None  # noqa: S101 - the reason for the intention
                await self._endings.end(self._claim, deadline_passed(deadline))
            case FailedEvent(reason=reason, message=message, retry_delay_seconds=delay), _:
                _log.warning("job %s failed: %s %s\n%s", job.job_id, reason, message, ended.log_tail)
                await self._try_again_or_fail(JobFailure(reason, message), "unavailable", delay)
            case _, Intention.REQUEUE:
                await self._endings.requeue(self._claim, "trainer_stops", None)
            case _, Intention.ABANDON:
                return
            case _:
                _log.error("worker of %s %s\n%s", job.job_id, ended.describe(), ended.log_tail)
                await self._conclude_dead(ended)

    async def _try_again_or_fail(self, failure: JobFailure, label: str, retry_delay_seconds: float | None) -> None:
        job = self._claim.job
        if retry_delay_seconds is None or job.outages >= self._max_outages:
            await self._endings.end(self._claim, failure)
            return
        pause = min(_LONGEST_PAUSE_SECONDS, max(retry_delay_seconds, 2.0**job.outages))
        await self._endings.requeue(self._claim, label, failure, is_outage=True, pause_seconds=pause)

    async def _conclude_dead(self, ended: WorkerExit) -> None:
        attempts = self._claim.job.attempts
        if ended.code != ExitCode.BAD_SPEC and attempts < self._max_attempts:
            message = f"The worker {ended.describe()} in attempt {attempts}, and the job is tried again."
            await self._endings.requeue(self._claim, "worker_died", JobFailure("WORKER_DIED", message))
            return
        message = (
            f"The worker {ended.describe()} before it had published a concept"
            f"{f', in the last of {attempts} attempts' if attempts > 1 else ''}. Often that means that memory ran out: "
            "submit the job again with a smaller batch_size or resolution."
        )
        await self._endings.end(self._claim, JobFailure("WORKER_DIED", message))
