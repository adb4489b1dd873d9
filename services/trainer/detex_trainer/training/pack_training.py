"""Jobs on one base model that are trained together, from photos to published concepts."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from detex_core.artifact import Manifest
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.failures import TrainingStopped
from detex_trainer.job_spec import JobSpec
from detex_trainer.progress import JobPhase, JobProgress, ProgressReporter
from detex_trainer.training.base_model import base_model_of
from detex_trainer.training.concept_training import ConceptTraining
from detex_trainer.training.loop import TrainingPack
from detex_trainer.training.memory import estimate_memory, free_memory_bytes, pack_size
from detex_trainer.training.run import TrainingRun
from detex_trainer.training_set.training_set import TrainingSet

MOST_JOBS = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PackedJob:
    """A job that is to be trained with others.

    Attributes:
        spec: The job.
        training_set: Its photos.
        reporter: Told of its phases, progress and previews.
        should_stop: Asked before each of its steps and between its phases.
    """

    spec: JobSpec
    training_set: TrainingSet
    reporter: ProgressReporter
    should_stop: Callable[[], bool]


def train_pack(
    jobs: Sequence[PackedJob],
    store: ObjectStore,
    on_end: Callable[[PackedJob, Manifest | Exception], None],
    *,
    most: int = MOST_JOBS,
    free_bytes: Callable[[torch.device], int] = free_memory_bytes,
) -> None:
    """Train jobs together, as many at a time as memory allows, and publish each when its own steps are done.

    What comes of a job is what comes of it alone, but for rounding. One that fails or is stopped leaves the others
    alone; the next takes its place.

    Args:
        jobs: At least one, all of one `JobSpec.pack_key`.
        store: Where the concepts go, and where base models of source `store:` come from.
        on_end: Told what has become of each job: its manifest, or what `train_concept` would have raised.
        most: Most jobs at a time.
        free_bytes: Tells the free memory of a device.

    Raises:
        ValueError: The jobs do not fit together.
        DetexError: As loading the base model; then no job has begun.
    """
    if len({job.spec.pack_key for job in jobs}) != 1:
        raise ValueError("jobs of one pack have the same base model, method and size")
    for job in jobs:
        job.reporter.progress(JobProgress(JobPhase.PREPARING, 0, job.spec.hyperparameters.steps))
    base_model = base_model_of(jobs[0].spec, store)
    waiting = deque(jobs)
    training = _PackTraining(base_model, store, on_end)
    room = 1
    while waiting or training.is_busy:
        while waiting and training.jobs < room:
            free = free_bytes(base_model.device)
            begun = training.begin(waiting.popleft())
            if begun is not None and room == 1:
                room = training.room(begun, free, most)
        training.advance()


class _PackTraining:
    """The jobs of a pack that have begun."""

    def __init__(
        self, base_model: BaseModel, store: ObjectStore, on_end: Callable[[PackedJob, Manifest | Exception], None]
    ) -> None:
        self._base_model = base_model
        self._store = store
        self._on_end = on_end
        self._pack = TrainingPack(base_model)
        self._trainings: dict[TrainingRun, tuple[PackedJob, ConceptTraining]] = {}

    @property
    def jobs(self) -> int:
        return len(self._trainings)

    @property
    def is_busy(self) -> bool:
        return bool(self._trainings)

    def begin(self, job: PackedJob) -> ConceptTraining | None:
        """Prepare a job and let it take part; None where that failed."""
        try:
            training = ConceptTraining(
                job.spec, job.training_set, self._store, job.reporter, self._base_model, job.should_stop
            )
        except Exception as error:
            self._on_end(job, error)
            return None
        self._trainings[training.run] = (job, training)
        self._pack.add(training.run, training.listeners)
        return training

    def room(self, training: ConceptTraining, free_bytes: int, most: int) -> int:
        """How many jobs like this one may run at a time."""
        run, batch_size = training.run, training.spec.hyperparameters.batch_size
        estimate = estimate_memory(run.learner, run.photo_set, self._base_model, batch_size)
        size = pack_size(estimate, free_bytes, most)
        _log.info(
            "%d jobs at a time: each takes about %.0f MB, %.0f MB are free",
            size,
            estimate.total_bytes / 1e6,
            free_bytes / 1e6,
        )
        return size

    def advance(self) -> None:
        """Do one step of every job, and end those that are through with theirs."""
        for run, (job, _) in list(self._trainings.items()):
            if not run.is_finished and job.should_stop():
                self._pack.leave(run)
                self._end(run, TrainingStopped())
        for run, failure in self._pack.advance().items():
            self._end(run, failure)
        for run, (_, training) in list(self._trainings.items()):
            if run.is_finished:
                try:
                    self._end(run, training.publish())
                except Exception as error:
                    self._end(run, error)

    def _end(self, run: TrainingRun, outcome: Manifest | Exception) -> None:
        job, training = self._trainings.pop(run)
        training.close()
        self._on_end(job, outcome)
