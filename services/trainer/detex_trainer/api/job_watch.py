"""Following a job until it ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from detex_core.errors import DataLossError, NotFoundError, UnavailableError
from detex_core.object_store import ObjectStore
from detex_core.tenant_threads import TenantThreads
from detex_trainer.domain.progress import JobPreview, JobProgress
from detex_trainer.jobs import Job, JobRepository, JobState, PreviewRecord
from detex_trainer.supervision import JobFeed

News = Job | JobProgress | JobPreview


class JobWatch:
    """Tells callers how jobs go; for use within one event loop.

    The database says how a job stands. Changes made in this process wake watchers at once; changes made by another
    trainer are seen at the next look.

    Args:
        jobs: The jobs.
        store: Where previews lie.
        feed: Tells of changes made here.
        threads: Who watches shares these with the other calls.
        interval_seconds: Longest time between two looks.
        stopping: Set when this trainer stops; watchers are sent away then.
    """

    def __init__(
        self,
        jobs: JobRepository,
        store: ObjectStore,
        feed: JobFeed,
        threads: TenantThreads,
        *,
        interval_seconds: float,
        stopping: asyncio.Event,
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._feed = feed
        self._threads = threads
        self._interval_seconds = interval_seconds
        self._stopping = stopping

    async def watch(self, tenant: str, job_id: str) -> AsyncGenerator[News, None]:
        """The job as it stands, then each change of it, and the job again when it has ended.

        Raises:
            NotFoundError: The tenant has no such job.
            UnavailableError: This trainer stops, or the database does not answer; another trainer can be asked.
        """
        with self._feed.watching(job_id) as changed:
            job = await self._threads.run(self._jobs.get, tenant, job_id)
            yield job
            shown_step = -1
            if not job.has_ended and (earlier := await self._previews(job, -1)):
                # Of what was drawn before the watcher came, the last is enough.
                shown_step = earlier[-1].step
                async for preview in self._loaded(earlier[-1:]):
                    yield preview
            while not job.has_ended:
                await self._next_look(changed)
                before, job = job, await self._threads.run(self._jobs.get, tenant, job_id)
                if job.progress is not None and job.progress != before.progress:
                    yield job.progress
                if before.attempts != job.attempts and job.state is not JobState.QUEUED:
                    shown_step = -1
                if job.state is not JobState.QUEUED:
                    new = await self._previews(job, shown_step)
                    shown_step = new[-1].step if new else shown_step
                    async for preview in self._loaded(new):
                        yield preview
                if job.state is not before.state:
                    yield job

    async def _next_look(self, changed: asyncio.Event) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        change = asyncio.ensure_future(changed.wait())
        try:
            await asyncio.wait((stopping, change), timeout=self._interval_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            change.cancel()
        if self._stopping.is_set():
            raise UnavailableError("This trainer is shutting down; watch the job again to follow it on another one.")
        # Cleared before the look: a change during it leads to another look.
        changed.clear()

    async def _previews(self, job: Job, after_step: int) -> tuple[PreviewRecord, ...]:
        return await self._threads.run(self._jobs.previews, job, after_step=after_step)

    async def _loaded(self, previews: tuple[PreviewRecord, ...]) -> AsyncIterator[JobPreview]:
        for preview in previews:
            try:
                png = await self._threads.run(self._store.get, preview.key)
            except (NotFoundError, DataLossError, UnavailableError):
                continue  # a missing preview is no reason to end the watch
            yield JobPreview(preview.step, preview.prompt, png)
