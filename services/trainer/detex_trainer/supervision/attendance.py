"""Sees the claimed jobs of one worker through: starts it, hands on what it reports, ends each job as it ended."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

from detex_core.errors import DetexError
from detex_core.grpc_server import as_domain_error
from detex_core.logging import log_fields
from detex_trainer.domain.failures import WORKER_SILENT
from detex_trainer.domain.job_spec import JobSpec, PackSpec
from detex_trainer.domain.progress import JobPhase
from detex_trainer.executors import Executor, WorkerExit, WorkerRun
from detex_trainer.jobs import Job, JobClaim
from detex_trainer.supervision.job_attendance import Intention, JobAttendance, JobCare
from detex_trainer.worker.events import ExitCode, ProgressEvent

_LAST_WORD_SECONDS = 10.0
_ORDERLY = WorkerExit(ExitCode.REPORTED, "", "stopped")

_log = logging.getLogger(__name__)


class Attendance:
    """One worker for the claims of one pack.

    Attributes:
        jobs: What it trains.
    """

    def __init__(self, claims: Sequence[JobClaim], executor: Executor, care: JobCare) -> None:
        """Nothing is started yet.

        Args:
            claims: At least one, all of one pack id.
            executor: Where the worker runs.
            care: What is needed to see its jobs through.
        """
        self.jobs = tuple(JobAttendance(claim, care) for claim in claims)
        self._pack_id = claims[0].pack_id
        self._executor = executor
        self._care = care
        self._run: WorkerRun | None = None
        self._conclusions: set[asyncio.Task[None]] = set()
        self._training_began: float | None = None
        self._memory_bytes = 0
        self._gpu_memory_bytes = 0
        self._is_silent = False
        self._silence: asyncio.TimerHandle | None = None

    @property
    def time_left_seconds(self) -> float | None:
        """Estimate of the time until all jobs have ended; None while unknown."""
        left = [job.time_left_seconds for job in self.jobs if job.is_at_work]
        return None if None in left else max((each for each in left if each is not None), default=0.0)

    @property
    def training_seconds(self) -> float:
        """How long it has trained; 0 while it prepares, for that is done again by the next worker."""
        return 0.0 if self._training_began is None else time.monotonic() - self._training_began

    @property
    def is_stopping(self) -> bool:
        """Whether all that it still trains is to stop."""
        return all(job.intention is not None for job in self._at_work())

    async def see_through(self, write_spec: Callable[[Job], JobSpec]) -> None:
        """Run the jobs to their ends; raises nothing that they could bring about.

        Args:
            write_spec: Makes a job spec of a job; raises DetexError where the job can no longer run.
        """
        only = self.jobs[0] if len(self.jobs) == 1 else None
        with log_fields(pack_id=self._pack_id) if only is None else only.log_scope():
            await self._see_through(write_spec)

    async def _see_through(self, write_spec: Callable[[Job], JobSpec]) -> None:
        for job in self.jobs:
            self._care.feed.publish(job.job_id)
        ended = _ORDERLY
        specs = self._specs(write_spec)
        if specs:
            try:
                self._run = await self._executor.start(PackSpec(pack_id=self._pack_id, jobs=tuple(specs)))
            except DetexError as error:
                for job in self._at_work():
                    self._conclude(job, job.conclude_unstarted(error))
            else:
                self._care.metrics.pack_size.observe(len(specs))
                ended = await self._follow(self._run)
                if self._is_silent:
                    cause = f"gave no sign of life for {self._care.silence_seconds:,.0f} seconds"
                    ended = replace(ended, cause=cause, reason=WORKER_SILENT)
                self._care.metrics.worker_ended(self._memory_bytes, self._gpu_memory_bytes)
        for job in self.jobs:
            if not job.is_over:
                self._conclude(job, job.conclude(ended))
        await asyncio.gather(*self._conclusions)

    def stop(self, job: JobAttendance, intention: Intention) -> None:
        """Have a job stopped: with its worker, unless that has others to continue with.

        Args:
            job: One of its jobs.
            intention: Why.
        """
        if job.is_over:
            return
        job.intend(intention)
        if self._run is None:
            return  # to be looked at when it has been started
        at_work = self._at_work()
        if all(each.intention is not None for each in at_work):
            if any(each.intention is Intention.ABANDON for each in at_work) or intention is Intention.ABANDON:
                self._run.kill()
            else:
                self._run.stop()
        elif job.is_at_work:
            # The worker will notice by the job's outcome that somebody has ended it, and leave it.
            self._conclude(job, job.conclude(_ORDERLY))

    def stop_all(self, intention: Intention) -> None:
        """Have all jobs stopped."""
        for job in self.jobs:
            job.intend(intention)
        for job in self.jobs:
            self.stop(job, intention)

    def _specs(self, write_spec: Callable[[Job], JobSpec]) -> list[JobSpec]:
        """What the worker is told of the jobs that are to be run; the others are ended."""
        specs = []
        for job in self.jobs:
            if job.intention is not None:
                continue  # ended with those that ran
            try:
                specs.append(write_spec(job.claim.job))
            except DetexError as error:
                self._conclude(job, job.conclude_unstarted(error))
            except Exception as error:
                _log.exception("job %s cannot be written down for a worker", job.job_id)
                self._conclude(job, job.conclude_unstarted(as_domain_error(error)))
        for job in self.jobs:
            job.shares_worker = len(specs) > 1
        return specs

    async def _follow(self, run: WorkerRun) -> WorkerExit:
        for job in self._at_work():
            if job.intention is not None:
                self.stop(job, job.intention)
        self._listen(run)
        try:
            if self._at_work():
                await self._take_events(run)
        finally:
            self._end_silence()
            # Whatever went wrong here, and whatever the worker does after its last word: it may not outlive this.
            ended = await self._end_of(run)
        return ended

    def _listen(self, run: WorkerRun) -> None:
        """Give the worker time anew until its next sign of life."""
        self._end_silence()
        if self._care.silence_seconds:
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(self._care.silence_seconds, self._give_up_on, run)

    def _end_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()

    def _give_up_on(self, run: WorkerRun) -> None:
        _log.error("worker of %s gives no sign of life and is ended", self._pack_id)
        self._is_silent = True
        run.kill()

    async def _take_events(self, run: WorkerRun) -> None:
        jobs = {job.job_id: job for job in self.jobs}
        only = self.jobs[0] if len(self.jobs) == 1 else None
        async for event in run.events():
            self._listen(run)
            job = jobs.get(event.job_id, None if event.job_id else only)
            if isinstance(event, ProgressEvent):
                if event.progress.phase is JobPhase.TRAINING and self._training_began is None:
                    self._training_began = time.monotonic()
                self._memory_bytes = max(self._memory_bytes, event.memory_bytes)
                self._gpu_memory_bytes = max(self._gpu_memory_bytes, event.gpu_memory_bytes)
            if job is None or not job.is_at_work:
                continue
            with job.log_scope():
                await job.take(event)
            if not self._at_work():
                return
            if job.final is not None:
                self._conclude(job, job.conclude(_ORDERLY))

    async def _end_of(self, run: WorkerRun) -> WorkerExit:
        if self._is_ended_early():
            run.stop()
        elif not any(job.intention is not None for job in self._at_work()):
            try:
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    return await run.wait()
            except TimeoutError:
                run.kill()
        return await run.wait()

    def _is_ended_early(self) -> bool:
        """Whether the worker may still train a job that was ended while it went on with others."""
        return not self._at_work() and any(job.final is None for job in self.jobs)

    def _at_work(self) -> list[JobAttendance]:
        return [job for job in self.jobs if job.is_at_work]

    def _conclude(self, job: JobAttendance, conclusion: Coroutine[None, None, None]) -> None:
        """Decide what becomes of a job, however long that takes, while the worker continues with the others."""
        job.is_over = True
        with job.log_scope():
            self._conclusions.add(asyncio.create_task(conclusion, name=f"end of {job.job_id}"))
