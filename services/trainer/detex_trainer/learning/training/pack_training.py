"""Jobs on one base model that are trained together, from photos to published concepts."""

import logging
from collections.abc import Callable, Sequence

import torch

from detex_core.artifact import Manifest
from detex_core.errors import DetexError
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.failures import NoRoomError, TrainingStopped, spoils_worker
from detex_trainer.domain.packing import OnEnd, PackedJob, rows_per_step
from detex_trainer.domain.progress import JobPhase, JobProgress
from detex_trainer.learning.training.base_model import base_model_of
from detex_trainer.learning.training.concept_training import ConceptTraining
from detex_trainer.learning.training.loop import TrainingPack
from detex_trainer.learning.training.memory import MemoryRoom, estimate_memory, free_memory_bytes
from detex_trainer.learning.training.run import TrainingRun

_log = logging.getLogger(__name__)


def train_pack(
    jobs: Sequence[PackedJob],
    store: ObjectStore,
    on_end: OnEnd,
    *,
    free_bytes: Callable[[torch.device], int] = free_memory_bytes,
) -> None:
    """Train jobs together, and publish each when its own steps are done.

    What comes of a job is what comes of it alone, but for rounding. One that fails or is stopped leaves the others
    alone, whatever made it fail. Each continues from its own last checkpoint. Before the second begins, it is estimated
    what each takes of memory; those that do not fit are given back at once. Where memory does not suffice after all,
    half of them are given back with what they have done so far.

    Args:
        jobs: At least one, all of one `JobSpec.pack_key`; the first is trained whatever memory there is.
        store: Where the concepts go, and where base models of source `store:` come from.
        on_end: Told what has become of each job: its manifest, or what `train_concept` would have raised, or
            `NoRoomError` where it was given back.
        free_bytes: Tells the free memory of a device.

    Raises:
        ValueError: The jobs do not fit together.
        Exception: Nothing can be trained here, and no job in particular is to blame.
    """
    if len({job.spec.pack_key for job in jobs}) != 1:
        raise ValueError("jobs of one pack have the same base model, method and size")
    for job in jobs:
        job.reporter.progress(JobProgress(JobPhase.PREPARING, 0, job.spec.hyperparameters.steps))
    try:
        base_model = base_model_of(jobs[0].spec, store)
    except DetexError as error:
        for job in jobs:
            on_end(job, error)
        return
    training = _PackTraining(base_model, store, on_end)
    room: MemoryRoom | None = None
    for job in jobs:
        rows = rows_per_step(job.spec.hyperparameters)
        if job.should_stop():
            on_end(job, TrainingStopped())
            continue
        if room is not None and not room.take(rows):
            _log.info("no room for job %s beside %d others", job.spec.job_id, training.jobs)
            on_end(job, NoRoomError())
            continue
        free = free_bytes(base_model.device)
        begun = training.begin(job)
        if begun is not None and room is None and len(jobs) > 1:
            room = training.room(begun, free)
            if room is not None:
                room.take(rows)
    while training.is_busy:
        training.advance()


class _PackTraining:
    """The jobs of a pack that have begun."""

    def __init__(self, base_model: BaseModel, store: ObjectStore, on_end: OnEnd) -> None:
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
            if spoils_worker(error):
                raise
            self._on_end(job, error)
            return None
        self._trainings[training.run] = (job, training)
        self._pack.add(training.run, training.listeners)
        return training

    def room(self, training: ConceptTraining, free_bytes: int) -> MemoryRoom | None:
        """What memory there was before a job began, in jobs like it; None where it fails at its first look."""
        run, hyperparameters = training.run, training.spec.hyperparameters
        try:
            estimate = estimate_memory(run.learner, run.photo_set, self._base_model, hyperparameters.batch_size)
        except Exception as error:
            if spoils_worker(error):
                raise
            self._pack.discard(run)
            self._end(run, error)
            return None
        megabytes = [f"{number / 1e6:.0f} MB" for number in (estimate.total_bytes, free_bytes)]
        _log.info("a job takes about %s, %s are free", *megabytes)
        return MemoryRoom(estimate, rows_per_step(hyperparameters), free_bytes)

    def advance(self) -> None:
        """Do one step of every job, and end those that are through with theirs."""
        for run, (job, _) in list(self._trainings.items()):
            if not run.is_finished and job.should_stop():
                self._leave(run, TrainingStopped())
        # One that has come back with all its steps done takes no further one.
        failures = self._pack.advance() if self._pack.runs else {}
        for run, failure in failures.items():
            self._end(run, failure)
        for run, (_, training) in list(self._trainings.items()):
            if run.is_finished:
                try:
                    outcome: Manifest | Exception = training.publish()
                except Exception as error:
                    if spoils_worker(error):
                        raise
                    outcome = error
                self._end(run, outcome)
        if self._pack.is_short_of_memory:
            self._give_back_half()

    def _give_back_half(self) -> None:
        runs = self._pack.runs
        for run in runs[(len(runs) + 1) // 2 :]:
            self._leave(run, NoRoomError())
        self._pack.relieve()

    def _leave(self, run: TrainingRun, outcome: Exception) -> None:
        """Let a job go that is to continue another time, with its state kept."""
        try:
            self._pack.leave(run)
        except Exception as error:
            if spoils_worker(error):
                raise
            _log.warning("the state of a job that leaves is not kept", exc_info=True)
        self._end(run, outcome)

    def _end(self, run: TrainingRun, outcome: Manifest | Exception) -> None:
        job, training = self._trainings.pop(run)
        try:
            training.close()
        except Exception:
            _log.warning("checkpoints of job %s not closed", job.spec.job_id, exc_info=True)
        self._on_end(job, outcome)
