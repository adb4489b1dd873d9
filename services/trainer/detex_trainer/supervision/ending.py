"""How jobs end: what is published decides, and what was decided is recorded."""

import asyncio
import logging
from collections.abc import Callable

from detex_core.artifact import Closing, PublicationClosedError, StoredManifest, close_publication, find_publication
from detex_core.errors import DetexError, UnavailableError
from detex_core.object_store import ObjectStore
from detex_trainer.domain.job_files import outcome_key
from detex_trainer.jobs import CANCELLED, JobClaim, JobClaims, JobFailure, JobState
from detex_trainer.metrics import TrainerMetrics
from detex_trainer.supervision.claim_threads import ClaimThreads
from detex_trainer.supervision.feed import JobFeed

_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class JobEndings:
    """Records what became of claimed jobs, however long database and object store do not answer.

    A job may not end without a concept while one of its attempts publishes it. So the end is first written beside the
    job's files, in the very place where a publication would be (see `detex_core.artifact.publication`); whichever comes
    first holds.
    """

    def __init__(
        self,
        claims: JobClaims,
        threads: ClaimThreads,
        store: ObjectStore,
        feed: JobFeed,
        metrics: TrainerMetrics,
        on_end: Callable[[], None],
    ) -> None:
        """Nothing is recorded yet.

        Args:
            claims: The jobs that trainers hold.
            threads: Threads for the job table.
            store: Where jobs publish.
            feed: Told of each end.
            metrics: Counts.
            on_end: Called when a job has ended.
        """
        self._on_end = on_end
        self._claims = claims
        self._threads = threads
        self._store = store
        self._feed = feed
        self._metrics = metrics

    async def succeed(self, claim: JobClaim, version: str) -> None:
        """End a job whose worker says that it has published."""
        await self._write(claim, JobState.SUCCEEDED, lambda: self._claims.succeed(claim, version))

    async def end(self, claim: JobClaim, failure: JobFailure) -> None:
        """End a job without a concept, unless it has published one.

        Args:
            claim: The claim.
            failure: Why; of the reason `CANCELLED` where its caller asked for it.
        """
        closing = await self._close(claim, Closing(reason=failure.reason, message=failure.message))
        if isinstance(closing, StoredManifest):
            _log.info("job %s had published before it was to end: %s", claim.job.job_id, failure.message)
            await self.succeed(claim, closing.manifest.version)
        elif closing.reason == CANCELLED:
            await self._write(claim, JobState.CANCELLED, lambda: self._claims.cancel(claim))
        else:
            decided = JobFailure(closing.reason, closing.message)
            if await self._write(claim, JobState.FAILED, lambda: self._claims.fail(claim, decided)):
                self._metrics.failed(decided.reason)

    async def requeue(
        self,
        claim: JobClaim,
        label: str,
        cause: JobFailure | None,
        *,
        is_outage: bool = False,
        pause_seconds: float = 0,
        run_seconds: float = 0,
    ) -> None:
        """Put a job back into the queue.

        Args:
            claim: The claim.
            label: Cause for the metrics.
            cause: Cause for people; None where the job was stopped on purpose.
            is_outage: Whether something that jobs need did not answer, for which no job is to blame.
            pause_seconds: How long it waits before it is retried.
            run_seconds: How long a worker has had it.
        """

        def requeue() -> bool:
            return self._claims.requeue(
                claim, cause=cause, is_outage=is_outage, pause_seconds=pause_seconds, run_seconds=run_seconds
            )

        if await self._write(claim, JobState.QUEUED, requeue):
            self._metrics.requeued.labels(label).inc()

    async def _close(self, claim: JobClaim, closing: Closing) -> StoredManifest | Closing:
        job = claim.job
        key = outcome_key(job.tenant, job.job_id)
        while True:
            try:
                return await asyncio.to_thread(close_publication, self._store, key, closing)
            except PublicationClosedError as closed:
                return closed.closing
            except UnavailableError as error:
                _log.warning("job %s not yet ended: %s", job.job_id, error.message)
            except DetexError as error:
                _log.warning("the end of job %s is not kept in the object store: %s", job.job_id, error.message)
                try:
                    return await asyncio.to_thread(find_publication, self._store, key) or closing
                except PublicationClosedError as closed:
                    return closed.closing
                except UnavailableError:
                    _log.warning("job %s not yet ended", job.job_id)
                except DetexError:
                    return closing
            await asyncio.sleep(_RETRY_SECONDS)

    async def _write(self, claim: JobClaim, state: JobState, transition: Callable[[], bool]) -> bool:
        """Write what became of a job; False where the claim is lost."""
        job = claim.job
        while True:
            try:
                written = await self._threads.run(transition)
                break
            except DetexError as error:
                _log.warning("job %s not yet recorded as %s: %s", job.job_id, state, error.message)
                await asyncio.sleep(_RETRY_SECONDS)
        if written:
            _log.info("job %s is %s", job.job_id, state)
            if state is not JobState.QUEUED:
                self._metrics.ended.labels(job.order.method, state).inc()
                self._metrics.attempts.labels(state).observe(job.attempts)
                self._on_end()
        else:
            _log.warning("job %s was no longer held by this trainer when it was to be %s", job.job_id, state)
        self._feed.publish(job.job_id)
        return written
