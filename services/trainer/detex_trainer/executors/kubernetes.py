"""Workers as batch/v1 Jobs of a Kubernetes cluster.

There is one Job for each pack of jobs, named after the pack, so there are never two. A worker does not end with its
trainer: the trainer that takes the pack over finds the Job running and follows it from then on, and what its worker has
written meanwhile is read from the pod's log. Events are lines of that log; all other lines are the worker's own.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from detex_core.errors import AlreadyExistsError, DetexError, UnavailableError
from detex_trainer.domain.failures import OUT_OF_MEMORY
from detex_trainer.domain.job_spec import PackSpec
from detex_trainer.executors.kubernetes_api import KubernetesApi
from detex_trainer.executors.kubernetes_settings import KubernetesSettings
from detex_trainer.executors.protocol import WorkerExit
from detex_trainer.executors.worker_manifest import job_name, worker_manifest
from detex_trainer.worker.events import WorkerEvent, read_event

_LOOK_SECONDS = 1.0
_GONE_SECONDS = 120.0
_TAIL_LINES = 60
_MAX_LOGS = 128
_UNKNOWN_EXIT = 1
# Reasons for which a container waits and that do not pass by themselves.
_HOPELESS = frozenset({"CreateContainerConfigError", "ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff"})

_log = logging.getLogger(__name__)


class KubernetesExecutor:
    """Starts each worker as a Job.

    Args:
        settings: What Jobs look like, and where.
        command: Program and arguments of a worker.
        stop_grace_seconds: Wait between asking a worker to stop and killing it.
        look_seconds: Time between two looks at a Job.

    Attributes:
        outlives_trainer: Always: see above.

    Raises:
        FailedPreconditionError: There are no credentials for the cluster.
    """

    outlives_trainer = True

    def __init__(
        self,
        settings: KubernetesSettings,
        command: Sequence[str],
        *,
        stop_grace_seconds: float,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._stop_grace_seconds = stop_grace_seconds
        self._look_seconds = look_seconds
        self._owner = secrets.token_hex(8)
        self._api = KubernetesApi(settings)
        # One per worker waits for its log; in the threads that calls share it would keep them waiting too.
        self._log_threads = ThreadPoolExecutor(_MAX_LOGS, thread_name_prefix="pod logs")

    async def start(self, pack: PackSpec) -> "KubernetesRun":
        """Start the worker of a pack, or follow it where a trainer that is gone has started it.

        Raises:
            UnavailableError: The cluster does not answer, or an earlier Job does not go away.
            ResourceExhaustedError: The namespace has no room.
            FailedPreconditionError: The cluster refuses the Job.
            PermissionDeniedError: The trainer may not make Jobs.
        """
        manifest = worker_manifest(
            pack,
            self._settings,
            command=self._command,
            owner=self._owner,
            stop_grace_seconds=self._stop_grace_seconds,
        )
        deadline = time.monotonic() + _GONE_SECONDS
        while True:
            try:
                await asyncio.to_thread(self._api.create_job, manifest)
                break
            except AlreadyExistsError:
                if await asyncio.to_thread(self._adopt, pack.pack_id):
                    break
            if time.monotonic() > deadline:
                raise UnavailableError("The worker of an earlier attempt has not stopped.")
            await asyncio.sleep(self._look_seconds)
        return KubernetesRun(
            self._api,
            self._log_threads,
            pack.pack_id,
            self._owner,
            self._settings.start_timeout_seconds,
            self._look_seconds,
        )

    def _adopt(self, pack_id: str) -> bool:
        """Follow a Job that runs; one that has ended or is going makes room for a new one."""
        name = job_name(pack_id)
        found = self._api.job(name)
        if found is None or found.metadata.deletion_timestamp is not None:
            return False
        self._api.adopt_job(name, self._owner)
        if has_failed(found):
            self._api.delete_job(name, self._owner, at_once=True)
            return False
        _log.info("following the worker of %s that another trainer has started", pack_id)
        return True


def has_failed(job: Any) -> bool:
    """Whether a Job has ended without success."""
    return _holds(job, "Failed")


def has_ended(job: Any) -> bool:
    """Whether a Job has ended."""
    return _holds(job, "Failed") or _holds(job, "Complete")


def _holds(job: Any, condition: str) -> bool:
    return any(each.type == condition and each.status == "True" for each in job.status.conditions or ())


class KubernetesRun:
    """A worker in a pod."""

    def __init__(
        self,
        api: KubernetesApi,
        log_threads: ThreadPoolExecutor,
        pack_id: str,
        owner: str,
        start_timeout_seconds: float,
        look_seconds: float,
    ) -> None:
        self._api = api
        self._log_threads = log_threads
        self._pack_id = pack_id
        self._name = job_name(pack_id)
        self._owner = owner
        self._start_timeout_seconds = start_timeout_seconds
        self._look_seconds = look_seconds
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._last_time = ""
        self._last_read = time.monotonic()
        self._exit = WorkerExit(_UNKNOWN_EXIT, "", "was gone from the cluster")
        self._watch = asyncio.create_task(self._follow(), name=f"worker of {pack_id}")
        self._deletions: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._killing = False

    async def events(self) -> AsyncIterator[WorkerEvent]:
        """What the worker reports; lines of its log that are no events are kept for the trainer's log."""
        while (line := await self._lines.get()) is not None:
            try:
                event = read_event(line)
            except ValueError:
                self._tail.append(line.decode(errors="replace").rstrip()[:2_000])
                continue
            yield event

    async def wait(self) -> WorkerExit:
        """Wait for the end of the worker; afterwards its Job is deleted."""
        await asyncio.shield(self._watch)
        return replace(self._exit, log_tail="\n".join(self._tail))

    def stop(self) -> None:
        """Delete the Job, at which the cluster asks its pod to stop, and kills it after the grace time."""
        if not self._stopping:
            self._stopping = True
            self._delete(at_once=False)

    def kill(self) -> None:
        """Delete the Job and its pod at once."""
        if not self._killing:
            self._stopping = self._killing = True
            self._delete(at_once=True)

    def _delete(self, *, at_once: bool) -> None:
        task = asyncio.create_task(self._keep_deleting(at_once=at_once))
        self._deletions.add(task)
        task.add_done_callback(self._deletions.discard)

    async def _keep_deleting(self, *, at_once: bool) -> None:
        while not self._watch.done():
            try:
                await asyncio.to_thread(self._api.delete_job, self._name, self._owner, at_once=at_once)
                return
            except DetexError as error:
                _log.warning("worker of %s not yet deleted: %s", self._pack_id, error.message)
            await asyncio.sleep(self._look_seconds)

    async def _follow(self) -> None:
        began = time.monotonic()
        try:
            while True:
                try:
                    over = await self._look(waited_seconds=time.monotonic() - began)
                except DetexError as error:
                    _log.warning("worker of %s not seen: %s", self._pack_id, error.message)
                    over = False
                if over:
                    break
                await asyncio.sleep(self._look_seconds)
            if not self._stopping:
                # What was to be read is read; until then the Job stands for the next trainer to find.
                self._stopping = True
                await self._remove()
        finally:
            self._lines.put_nowait(None)

    async def _look(self, *, waited_seconds: float) -> bool:
        """Read what is new; True where nothing runs any more."""
        job = await asyncio.to_thread(self._api.job, self._name)
        pods = await asyncio.to_thread(self._api.pods, self._name)
        for pod in pods:
            if pod.status.phase in {"Running", "Succeeded", "Failed"}:
                await self._loop.run_in_executor(self._log_threads, self._read_log, pod.metadata.name)
        pods = await asyncio.to_thread(self._api.pods, self._name)
        if pods:
            self._note_exit(pods[-1])
        running = [pod for pod in pods if pod.status.phase not in {"Succeeded", "Failed"}]
        if job is None or has_ended(job):
            return not running
        if running and not self._stopping:
            self._give_up_on(running[-1], waited_seconds)
        return False

    def _read_log(self, pod_name: str) -> None:
        silent_seconds = int(time.monotonic() - self._last_read) + 5
        for when, line in self._api.log_lines(pod_name, silent_seconds if self._last_time else None):
            if when <= self._last_time:
                continue  # read before the connection broke
            self._last_time, self._last_read = when, time.monotonic()
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)

    def _note_exit(self, pod: Any) -> None:
        for status in pod.status.container_statuses or ():
            ended = status.state.terminated
            if ended is not None:
                code = ended.exit_code
                code = 128 - code if 128 < code < 160 else code
                if ended.reason == "OOMKilled":
                    cause = "took more memory than its pod may use"
                    self._exit = WorkerExit(code, "", cause, reason=OUT_OF_MEMORY)
                else:
                    self._exit = WorkerExit(code, "")
                return
        if pod.status.reason:
            self._exit = WorkerExit(_UNKNOWN_EXIT, "", f"lost its pod ({pod.status.reason})")

    def _give_up_on(self, pod: Any, waited_seconds: float) -> None:
        if pod.status.phase != "Pending":
            return
        waiting = [status.state.waiting for status in pod.status.container_statuses or () if status.state.waiting]
        hopeless = next((each for each in waiting if each.reason in _HOPELESS), None)
        if hopeless is not None:
            self._exit = WorkerExit(
                _UNKNOWN_EXIT, "", f"could not be started in its pod ({hopeless.reason}: {hopeless.message})"
            )
            self.kill()
        elif waited_seconds > self._start_timeout_seconds:
            self._exit = WorkerExit(
                _UNKNOWN_EXIT, "", f"found no room in the cluster within {self._start_timeout_seconds:g} seconds"
            )
            self.kill()

    async def _remove(self) -> None:
        try:
            await asyncio.to_thread(self._api.delete_job, self._name, self._owner, at_once=False)
        except DetexError as error:
            _log.warning("Job %s not deleted; the cluster will in time: %s", self._name, error.message)
