"""The life of a worker process, whatever function trains in it."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from pydantic import ValidationError

from detex_trainer.domain.job_spec import PackSpec
from detex_trainer.worker.events import ExitCode
from detex_trainer.worker.pack_run import PackRun, TrainFunction
from detex_trainer.worker.reporter import EventWriter

SPEC_VARIABLE = "DETEX_JOB_SPEC"
_SPEC_BYTES = 1024**2

_log = logging.getLogger(__name__)


def run_worker(train: Callable[[], TrainFunction]) -> ExitCode:
    """Read what is to be trained, train, report on standard output.

    What is to be trained comes from `DETEX_JOB_SPEC`, or else from standard input; then this process ends when
    standard input closes, for the trainer is gone.

    Args:
        train: Gives the function that trains; called after the worker can be stopped, for its imports take seconds.

    Returns:
        The exit status.
    """
    # The trainer adds time and worker to what it finds here.
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
    events = EventWriter(_take_standard_output())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    given = os.environ.pop(SPEC_VARIABLE, "")
    try:
        pack = PackSpec.model_validate_json(given or _read_line(sys.stdin.fileno()))
    except ValidationError as error:
        _log.error("jobs refused: %s", error)
        return ExitCode.BAD_SPEC
    if not given:
        threading.Thread(target=_end_with_parent, args=(sys.stdin.fileno(),), name="parent watch", daemon=True).start()
    os.nice(pack.jobs[0].niceness)
    PackRun(pack, events, stop.is_set).run(train)
    return ExitCode.REPORTED


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
