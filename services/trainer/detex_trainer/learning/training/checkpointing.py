"""Writes checkpoints of a run while it continues, and brings a run back to the last one."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

from detex_core import __version__
from detex_core.errors import DataLossError, DetexError
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.learning.methods.learner import FirstWords
from detex_trainer.learning.resumable import RunState
from detex_trainer.learning.training.checkpoint_archive import CheckpointArchive
from detex_trainer.learning.training.run import TrainingRun
from detex_trainer.learning.training.state import read_state, write_tensors

_log = logging.getLogger(__name__)


def course_digest(spec: JobSpec, base_model: BaseModel, first_words: FirstWords) -> str:
    """SHA-256 (hex) of all that the course of a job depends on, beside its photos.

    The words that it begins at are among it: another kind of machine may choose others where two are as good.
    """
    course = spec.model_dump_json(
        include={"concept_name", "training_set_id", "method", "hyperparameters", "attributes", "segmenter"}
    )
    words = json.dumps(asdict(first_words))
    parts = (course, words, base_model.fingerprint, str(base_model.dtype), base_model.device.type, __version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Checkpointer:
    """A `StepListener` that keeps the state of a run, at intervals and when it is stopped.

    The state is copied between two steps and written in a thread while training continues. A checkpoint that cannot be
    written, because the object store is unavailable or full, is logged and left out: training does not depend on it.

    Attributes:
        held_seconds: Time for which training was held up.
    """

    def __init__(
        self,
        archive: CheckpointArchive,
        digest: str,
        *,
        interval_seconds: float,
        on_kept: Callable[[int, float], None] = lambda step, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is written yet.

        Args:
            archive: Where checkpoints go; used by one thread at a time.
            digest: See `course_digest`.
            interval_seconds: Time between two checkpoints.
            on_kept: Told of each checkpoint its step and the seconds that writing it took; called from a thread.
            clock: Seconds.
        """
        self.held_seconds = 0.0
        self._archive = archive
        self._digest = digest
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._on_kept = on_kept
        self._last = clock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def resume(self, run: TrainingRun) -> bool:
        """Bring a run that has just been constructed to the newest checkpoint; False where there is none.

        Raises:
            DetexError: As ObjectStore.get.
        """
        stored = self._archive.newest(self._digest)
        if stored is None:
            return False
        beginning = run.state()
        try:
            run.restore(read_state(stored.tensors, stored.record.values))
        except (DataLossError, KeyError, TypeError, ValueError, RuntimeError) as error:
            _log.warning("the checkpoint of step %d does not fit its job: %s", stored.record.step, error)
            run.restore(beginning)
            return False
        _log.info("going on from the checkpoint of step %d of %d", run.step, run.steps)
        self._last = self._clock()
        return True

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        """Keep the state where it is time to, and the last one has been written."""
        if self._clock() - self._last < self._interval_seconds or run.is_finished:
            return
        if self._writing is not None and not self._writing.done():
            return
        began = self._clock()
        state = run.keep_as_good()
        if state is not None:
            self._writing = self._writer.submit(self._write, run.step, state)
        self._last = self._clock()
        self.held_seconds += self._last - began

    def before_stop(self, run: TrainingRun) -> None:
        """Keep the state at once."""
        if run.step == 0:
            return
        state = run.keep_as_good()
        if state is not None:
            self._writer.submit(self._write, run.step, state).result()

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown()

    def _write(self, step: int, state: RunState) -> None:
        values = {part: each.values for part, each in state.items()}
        began = self._clock()
        try:
            self._archive.save(step, self._digest, write_tensors(state), values)
            self._on_kept(step, self._clock() - began)
        except DetexError as error:
            _log.warning("checkpoint of step %d not kept: %s", step, error.message)
        except Exception:
            _log.exception("checkpoint of step %d not kept", step)
