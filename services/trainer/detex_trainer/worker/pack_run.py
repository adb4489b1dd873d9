"""The jobs of one worker, from what it is told to the event that ends each of them."""

import logging
from collections.abc import Callable, Sequence

from detex_core.artifact import Manifest, find_publication
from detex_core.object_store import ObjectStore, open_object_store
from detex_trainer.domain.job_files import outcome_key
from detex_trainer.domain.job_spec import JobSpec, PackSpec
from detex_trainer.domain.packing import OnEnd, PackedJob
from detex_trainer.intake.archive import TrainingSetArchive
from detex_trainer.worker.job_end import end_of_job, end_of_pack
from detex_trainer.worker.outcome_watch import OutcomeWatch
from detex_trainer.worker.reporter import EventReporter, EventWriter

TrainFunction = Callable[[Sequence[PackedJob], ObjectStore, OnEnd], None]

_log = logging.getLogger(__name__)


class PackRun:
    """Trains the jobs of a pack and says how each has ended, once."""

    def __init__(self, pack: PackSpec, events: EventWriter, should_stop: Callable[[], bool]) -> None:
        """Nothing is done yet.

        Args:
            pack: The jobs.
            events: Where to say it.
            should_stop: Whether the worker was asked to stop.
        """
        self._pack = pack
        self._events = events
        self._should_stop = should_stop
        self._open = {job.job_id: job for job in pack.jobs}
        self._is_shared = len(pack.jobs) > 1

    def run(self, train: Callable[[], TrainFunction]) -> None:
        """Do it; raises nothing that the jobs could bring about.

        Args:
            train: Gives the function that trains; called when there is something to train.
        """
        try:
            store = open_object_store(self._pack.jobs[0].object_store, create=False)
            watch = OutcomeWatch(store, self._pack.jobs)
            jobs = [job for spec in self._pack.jobs if (job := self._prepare(spec, store, watch)) is not None]
            if not jobs:
                return
            watch.start()
            try:
                train()(jobs, store, self._take_end)
            finally:
                watch.stop()
        except Exception as error:
            _log.warning("jobs failed", exc_info=True)
            for job_id in list(self._open):
                del self._open[job_id]
                self._events.write(end_of_pack(job_id, error, is_shared=self._is_shared))

    def _prepare(self, spec: JobSpec, store: ObjectStore, watch: OutcomeWatch) -> PackedJob | None:
        """The job as it is trained; None where it has ended."""
        try:
            # An attempt before this one may have published and died before it could say so.
            published = find_publication(store, outcome_key(spec.tenant, spec.job_id))
            if published is not None:
                self._end(spec.job_id, published.manifest)
                return None
            training_set = TrainingSetArchive(store).load(spec.tenant, spec.training_set_id)
        except Exception as error:
            self._end(spec.job_id, error)
            return None
        return PackedJob(
            spec,
            training_set,
            EventReporter(self._events, store, spec.tenant, spec.job_id),
            lambda: self._should_stop() or watch.has_ended(spec.job_id),
        )

    def _take_end(self, job: PackedJob, outcome: Manifest | Exception) -> None:
        self._end(job.spec.job_id, outcome)

    def _end(self, job_id: str, outcome: Manifest | Exception) -> None:
        if isinstance(outcome, Exception):
            _log.warning("job %s has ended", job_id, exc_info=outcome)
        del self._open[job_id]
        self._events.write(end_of_job(job_id, outcome, is_shared=self._is_shared))
