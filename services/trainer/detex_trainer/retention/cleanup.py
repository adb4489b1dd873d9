"""Deletes what nobody needs any more: photos of jobs that have ended, unused training sets, files of old jobs."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from detex_core.artifact import delete_abandoned_attempts
from detex_core.errors import DetexError
from detex_core.object_store import ObjectStore
from detex_trainer.domain.job_files import OUTCOME_FILE, job_prefix, outcome_key
from detex_trainer.intake.archive import TrainingSetArchive
from detex_trainer.jobs import DeletionLedger, Job, JobRepository, JobRetention, JobState, TrainingSetLedger
from detex_trainer.metrics import TrainerMetrics
from detex_trainer.retention.concept_deletion import delete_listed

_INTERVAL_SECONDS = 10.0
# Jobs are kept for days, and finding those that are not reads the whole table.
_RETENTION_INTERVAL_SECONDS = 60.0
# A worker that was asked to stop, or taken for dead, may still write for a moment.
_SETTLED_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CleanupStores:
    """Where there is something to delete."""

    jobs: JobRepository
    retention: JobRetention
    ledger: TrainingSetLedger
    training_sets: TrainingSetArchive
    objects: ObjectStore
    deletions: DeletionLedger


class Cleanup:
    """Deletes in the background what is chosen for it; for use within one event loop.

    What is to be deleted is written in the database before anything is, and struck out when all is gone. So a trainer
    that dies half way leaves the rest to the next look, of whichever trainer.
    """

    def __init__(
        self,
        stores: CleanupStores,
        metrics: TrainerMetrics,
        *,
        unused_seconds: float,
        remove_abandoned_uploads: Callable[[], None],
    ) -> None:
        """Nothing is deleted yet.

        Args:
            stores: Where there is something to delete.
            metrics: Counts what is deleted.
            unused_seconds: How long a training set waits for its first job.
            remove_abandoned_uploads: Looks after what uploads have left on this machine.
        """
        self._stores = stores
        self._metrics = metrics
        self._unused_seconds = unused_seconds
        self._remove_abandoned_uploads = remove_abandoned_uploads
        self._wake = asyncio.Event()
        self._next_retention = 0.0
        self._stopping = False

    def wake(self) -> None:
        """Look at once: a job has ended."""
        self._wake.set()

    async def run(self) -> None:
        """Look again and again until `stop` is called, and once more then."""
        while True:
            last = self._stopping
            self._wake.clear()
            try:
                await asyncio.to_thread(self.look)
            except DetexError as error:
                _log.warning("not all is deleted that is to be: %s", error.message)
            except Exception:
                _log.exception("not all is deleted that is to be")
            if last:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL_SECONDS):
                    await self._wake.wait()

    def stop(self) -> None:
        """Look once more and end."""
        self._stopping = True
        self._wake.set()

    def look(self) -> None:
        """Delete what is to be deleted now; raises what database and object store raise."""
        stores = self._stores
        for key in stores.ledger.choose_for_deletion(unused_seconds=self._unused_seconds):
            deleted = stores.training_sets.remove(key.tenant, key.training_set_id)
            stores.ledger.mark_deleted(key)
            self._metrics.deleted_training_sets.inc()
            _log.info("deleted the %d objects of training set %s", len(deleted), key.training_set_id)
        for prefix in stores.deletions.due():
            deleted_keys = delete_listed(stores.deletions, stores.objects, prefix)
            _log.info("deleted the %d objects below %s that were left", len(deleted_keys), prefix)
        for job in stores.jobs.to_clear(ended_seconds=_SETTLED_SECONDS):
            self._clear(job)
            stores.jobs.mark_cleared(job)
        self._remove_abandoned_uploads()
        self._remove_old_jobs()

    def _remove_old_jobs(self) -> None:
        """Remove some of the jobs that are not kept any longer: what names objects, then the objects, then the row."""
        if time.monotonic() < self._next_retention:
            return
        stores = self._stores
        found = stores.retention.due()
        if found:
            stores.objects.check()  # a store that is not there holds nothing, which must not be taken for deleted
        for job in found:
            stores.retention.forget_previews(job)
            for each in list(stores.objects.list(job_prefix(job.tenant, job.job_id))):
                stores.objects.delete(each.key)
            if stores.retention.forget(job):
                self._metrics.removed_jobs.labels(job.state).inc()
                _log.info("removed job %s of %s, which ended at %s", job.job_id, job.tenant, job.end_time)
        if stores.retention.forget_deleted_training_sets() or found:
            return  # there may be more
        self._next_retention = time.monotonic() + _RETENTION_INTERVAL_SECONDS

    def _clear(self, job: Job) -> None:
        """Delete the working files of an ended job; a concept keeps its previews until it is deleted itself."""
        delete_abandoned_attempts(self._stores.objects, outcome_key(job.tenant, job.job_id))
        prefix = job_prefix(job.tenant, job.job_id)
        keeps_previews = job.state is JobState.SUCCEEDED
        for each in list(self._stores.objects.list(prefix)):
            name = each.key.removeprefix(prefix)
            if name != OUTCOME_FILE and not (keeps_previews and name.startswith("preview_")):
                self._stores.objects.delete(each.key)
