"""Turns the news of a training job into events of the worker."""

import dataclasses
import logging
import math
import os
import resource
import sys
import threading
import time

from detex_core.errors import DetexError
from detex_core.object_store import ObjectStore
from detex_trainer.domain.job_files import preview_key
from detex_trainer.domain.progress import JobPreview, JobProgress
from detex_trainer.worker.events import CheckpointEvent, PreviewEvent, ProgressEvent, WorkerEvent, write_event

_PROGRESS_INTERVAL_SECONDS = 0.2

_log = logging.getLogger(__name__)


class EventWriter:
    """Writes events to a file descriptor, each whole; safe to use from several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, event: WorkerEvent) -> None:
        """Write an event; raises BrokenPipeError where nobody reads any more."""
        line = memoryview(write_event(event))
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


class EventReporter:
    """The ProgressReporter of a worker: progress as events, previews through the object store."""

    def __init__(self, events: EventWriter, store: ObjectStore, tenant: str, job_id: str) -> None:
        self._events = events
        self._store = store
        self._tenant = tenant
        self._job_id = job_id
        self._last: JobProgress | None = None
        self._last_time = -math.inf

    def progress(self, progress: JobProgress) -> None:
        """Report progress; what comes too fast is left out, but never a change of phase or the last step."""
        now = time.monotonic()
        noteworthy = (
            self._last is None or progress.phase is not self._last.phase or progress.step >= progress.total_steps
        )
        if not noteworthy and now - self._last_time < _PROGRESS_INTERVAL_SECONDS:
            return
        self._last, self._last_time = progress, now
        # JSON has no infinity and no NaN; a loss that is either ends the job as diverged anyway.
        losses = {name: loss for name, loss in progress.losses.items() if math.isfinite(loss)}
        norm = progress.gradient_norm if math.isfinite(progress.gradient_norm) else 0.0
        self._events.write(
            ProgressEvent(
                job_id=self._job_id,
                progress=dataclasses.replace(progress, losses=losses, gradient_norm=norm),
                memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024,
                gpu_memory_bytes=_gpu_memory_bytes(),
            )
        )

    def preview(self, preview: JobPreview) -> None:
        """Keep a preview; one that cannot be kept is logged and left out, for the job does not depend on it."""
        key = preview_key(self._tenant, self._job_id, preview.step)
        try:
            self._store.put(key, preview.png, content_type="image/png")
        except DetexError as error:
            _log.warning("preview of step %d not kept: %s", preview.step, error.message)
            return
        self._events.write(PreviewEvent(job_id=self._job_id, step=preview.step, prompt=preview.prompt, key=key))

    def checkpoint(self, step: int, seconds: float) -> None:
        """Report a checkpoint."""
        self._events.write(CheckpointEvent(job_id=self._job_id, step=step, seconds=seconds))


def _gpu_memory_bytes() -> int:
    """The most memory of the GPU so far; 0 where nothing of torch is loaded, for this may not be what loads it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.max_memory_reserved())
