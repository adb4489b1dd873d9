"""The life of a worker process, whatever function trains in it."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from pydantic import ValidationError

from detex_core.artifact import Manifest, find_publication
from detex_core.errors import DetexError
from detex_core.grpc_server import as_domain_error
from detex_core.object_store import ObjectStore, open_object_store
from detex_trainer.failures import TrainingStopped
from detex_trainer.job_files import outcome_key
from detex_trainer.job_spec import JobSpec
from detex_trainer.progress import ProgressReporter
from detex_trainer.training_set.archive import TrainingSetArchive
from detex_trainer.training_set.training_set import TrainingSet
from detex_trainer.worker.events import ExitCode, FailedEvent, FinalEvent, StoppedEvent, SucceededEvent
from detex_trainer.worker.reporter import EventReporter, EventWriter

TrainFunction = Callable[[JobSpec, TrainingSet, ObjectStore, ProgressReporter, Callable[[], bool]], Manifest]

SPEC_VARIABLE = "DETEX_JOB_SPEC"
_SPEC_BYTES = 1024**2

_log = logging.getLogger(__name__)


def run_worker(train: Callable[[], TrainFunction]) -> ExitCode:
    """Read a job spec, train, report on standard output.

    The job spec comes from `DETEX_JOB_SPEC`, or else from standard input; then this process ends when standard input
    closes, for the trainer is gone.

    Args:
        train: Gives the function that trains; called after the worker can be stopped, for its imports take seconds.

    Returns:
        The exit status.
    """
    # The trainer adds time and job to what it finds here.
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
    events = EventWriter(_take_standard_output())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    given = os.environ.pop(SPEC_VARIABLE, "")
    try:
        spec = JobSpec.model_validate_json(given or _read_line(sys.stdin.fileno()))
    except ValidationError as error:
        _log.error("job spec refused: %s", error)
        return ExitCode.BAD_SPEC
    if not given:
        threading.Thread(target=_end_with_parent, args=(sys.stdin.fileno(),), name="parent watch", daemon=True).start()
    os.nice(spec.niceness)
    events.write(_run_job(spec, events, train, stop.is_set))
    return ExitCode.REPORTED


def _run_job(
    spec: JobSpec, events: EventWriter, train: Callable[[], TrainFunction], should_stop: Callable[[], bool]
) -> FinalEvent:
    try:
        store = open_object_store(spec.object_store)
        # An attempt before this one may have published and died before it could say so.
        published = find_publication(store, outcome_key(spec.tenant, spec.job_id))
        if published is not None:
            return SucceededEvent(concept_version=published.manifest.version)
        reporter = EventReporter(events, store, spec.tenant, spec.job_id)
        training_set = TrainingSetArchive(store).load(spec.tenant, spec.training_set_id)
        manifest = train()(spec, training_set, store, reporter, should_stop)
    except TrainingStopped:
        return StoppedEvent()
    except DetexError as error:
        _log.warning("job failed", exc_info=True)
        return _failed(error)
    except Exception as error:
        if _is_out_of_memory(error):
            _log.warning("job failed", exc_info=True)
            return FailedEvent(
                reason="OUT_OF_MEMORY",
                message="The memory did not suffice; submit the job again with a smaller batch_size or resolution.",
            )
        return _failed(as_domain_error(error))
    return SucceededEvent(concept_version=manifest.version)


def _failed(error: DetexError) -> FailedEvent:
    return FailedEvent(reason=error.reason, message=error.message, retry_delay_seconds=error.retry_delay_seconds)


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a type of its own for GPUs and a plain RuntimeError for main memory.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def _take_standard_output() -> int:
    """Keep standard output for events alone: whatever else is printed goes to standard error."""
    sys.stdout.flush()
    descriptor = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return descriptor


def _read_line(descriptor: int) -> bytes:
    # Read without a buffered file: a thread that waits in one would keep the interpreter from ending in order.
    line = b""
    while not line.endswith(b"\n") and len(line) < _SPEC_BYTES:
        data = os.read(descriptor, 65_536)
        if not data:
            break
        line += data
    return line


def _end_with_parent(descriptor: int) -> None:
    while os.read(descriptor, 4_096):
        pass
    os._exit(ExitCode.PARENT_GONE)
