"""Workers as child processes on this machine.

The worker's standard input carries what it is to train and stays open: when this process ends, in whatever way, the
pipe closes and the worker ends too. Each worker leads a process group of its own, so that a Ctrl-C meant for the
trainer does not reach it and nothing it has started survives it.
"""

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from detex_core.errors import UnavailableError
from detex_trainer.domain.failures import OUT_OF_MEMORY
from detex_trainer.domain.job_spec import PackSpec
from detex_trainer.executors.protocol import WorkerExit
from detex_trainer.executors.worker_memory import UNLIMITED, WorkerMemory
from detex_trainer.worker.events import WorkerEvent, read_event

_LINE_BYTES = 1024**2
_TAIL_LINES = 60
_LOOK_SECONDS = 0.05
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Threads that wait for work of others sleep rather than spin: workers and calls share the CPUs.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}

_log = logging.getLogger(__name__)


class ProcessExecutor:
    """Starts each worker as a child process.

    Attributes:
        outlives_trainer: Never: see above.
    """

    outlives_trainer = False

    def __init__(
        self,
        command: Sequence[str],
        *,
        threads: int,
        stop_grace_seconds: float,
        memory: WorkerMemory = UNLIMITED,
    ) -> None:
        """Nothing is started yet.

        Args:
            command: Program and arguments of a worker.
            threads: CPU threads of each worker.
            stop_grace_seconds: Wait between asking a worker to stop and killing it.
            memory: What each worker may take.
        """
        self._command = tuple(command)
        self._memory = memory
        self._threads = threads
        self._stop_grace_seconds = stop_grace_seconds

    async def start(self, pack: PackSpec) -> "ProcessRun":
        """Start a worker; raises UnavailableError where the machine cannot start a process."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_WAITING | os.environ | dict.fromkeys(_THREAD_VARIABLES, str(self._threads)),
                start_new_session=True,
                limit=_LINE_BYTES,
            )
        except OSError as error:
            raise UnavailableError(f"The worker could not be started: {error.strerror}.") from error
        self._memory.bind(process.pid)
        run = ProcessRun(process, pack.pack_id, self._stop_grace_seconds, self._memory)
        await run.send(pack)
        return run


class ProcessRun:
    """A worker in a child process."""

    def __init__(
        self, process: asyncio.subprocess.Process, pack_id: str, stop_grace_seconds: float, memory: WorkerMemory
    ) -> None:
        self._process = process
        self._memory = memory
        self._is_too_large = False
        self._pack_id = pack_id
        self._stop_grace_seconds = stop_grace_seconds
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._log_reader = asyncio.create_task(self._read_log(), name=f"log of {pack_id}")
        self._reaper = asyncio.create_task(self._reap(), name=f"end of {pack_id}")
        self._killer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    async def send(self, pack: PackSpec) -> None:
        """Write what is to be trained; a worker that is gone already is found out by `wait`."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - started with a pipe
        try:
            stdin.write(pack.model_dump_json().encode() + b"\n")
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            _log.warning("worker of %s closed its standard input", self._pack_id)

    async def events(self) -> AsyncIterator[WorkerEvent]:
        """What the worker reports; lines that are no events are logged and left out."""
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - started with a pipe
        while True:
            try:
                line = await stdout.readline()
            except ValueError:
                _log.error("worker of %s wrote a line of more than %d bytes", self._pack_id, _LINE_BYTES)
                continue
            if not line:
                return
            try:
                yield read_event(line)
            except ValueError:
                _log.error("worker of %s wrote what is no event: %r", self._pack_id, line[:200])

    async def wait(self) -> WorkerExit:
        """Wait for the worker's end and that of all it has started."""
        code = await asyncio.shield(self._reaper)
        await asyncio.shield(self._log_reader)
        tail = "\n".join(self._tail)
        if self._is_too_large:
            return WorkerExit(code, tail, f"took more than {self._memory.describe()}", reason=OUT_OF_MEMORY)
        return WorkerExit(code, tail)

    def stop(self) -> None:
        """SIGTERM now, SIGKILL after the grace time."""
        if self._killer is not None or self._process.returncode is not None:
            return
        # Only the worker itself knows how to stop in order; its helpers end with it. Popen.terminate would look whether
        # it has ended, and take its exit status away from asyncio.
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        self._killer = asyncio.get_running_loop().call_later(self._stop_grace_seconds, self.kill)

    def kill(self) -> None:
        """SIGKILL to the worker and all it has started."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _reap(self) -> int:
        # What the worker has left running would hold its pipes open, and `events` would never end; in some versions of
        # Python neither would `wait`, which is why this looks for itself.
        while self._process.returncode is None:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._memory.is_exceeded_by(self._process.pid):
                self._is_too_large = True
                self.kill()
        self._signal_group(signal.SIGKILL)
        code = await self._process.wait()
        if self._killer is not None:
            self._killer.cancel()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code

    async def _read_log(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None  # noqa: S101 - started with a pipe
        while True:
            try:
                line = await stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._tail.append(text[:2_000])
            _log.debug("worker of %s: %s", self._pack_id, text)
