"""The loop that denoises: at each step boundary images join and leave, and in between one UNet pass steps them all."""

import atexit
import threading
import time
from collections import Counter
from collections.abc import Callable

import torch

from detex_generator.compute.acceleration import Acceleration
from detex_generator.compute.row_lanes import RowLanes
from detex_generator.engine.active_request import ImageTask
from detex_generator.engine.decoding import Decoding
from detex_generator.engine.events import Progress
from detex_generator.engine.failures import HopelessDeadlineError, OutOfMemoryError
from detex_generator.engine.scheduling.pass_turns import PassTurns
from detex_generator.engine.scheduling.scheduler import Scheduler
from detex_generator.engine.slot_batch import SlotBatch, StepOutcome, failed_image
from detex_generator.metrics import GeneratorMetrics

Bucket = tuple[str, int, int, str]
"""Images that can share a UNet pass: name of the base model, height and width in pixels, and the key of a concept's own
UNet, empty for the base model's."""


class StepLoop:
    """A thread that owns the slots.

    Images of one UNet and size share a pass; where several buckets are live, passes go to them by `PassTurns`, so that
    large images yield to small ones between their steps. Slots are counted over all buckets.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        decoding: Decoding,
        metrics: GeneratorMetrics,
        *,
        cores: int,
        acceleration: Acceleration | None,
        on_room: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Prepare; `start` begins.

        Args:
            scheduler: Who is next.
            decoding: Where finished latents go.
            metrics: Receives passes.
            cores: Cores of a pass on a CPU.
            acceleration: Kernels and graphs of a GPU; None on a CPU.
            on_room: Called when images have left the ready queue for slots.
            on_failure: Called with what ended the loop before it was asked to stop.
        """
        self._scheduler = scheduler
        self._decoding = decoding
        self._metrics = metrics
        self._lanes = RowLanes(cores)
        self._acceleration = acceleration
        self._on_room = on_room
        self._on_failure = on_failure
        self._batches: dict[Bucket, SlotBatch] = {}
        self._turns: PassTurns[Bucket] = PassTurns()
        self._thread = threading.Thread(target=self._run, name="step-loop", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the end, after the scheduler was stopped."""
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join(timeout_seconds)
            if self._thread.is_alive():
                # A pass that takes longer ends before the process does: stopped amid torch's own code, it would abort.
                atexit.register(self._thread.join)

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                self._loop()
        except BaseException as error:
            self._on_failure(error)
        finally:
            self._lanes.close()

    def _loop(self) -> None:
        while True:
            for batch in self._batches.values():
                batch.drop_finished_requests()
            joining = self._scheduler.take_ready(self._tenants())
            if joining is None:
                return
            for task in joining:
                self._join(task)
            if joining:
                self._on_room()
            self._batches = {bucket: batch for bucket, batch in self._batches.items() if len(batch)}
            if self._batches:
                self._pass(self._turns.choose(self._batches))

    def _tenants(self) -> Counter[str]:
        """Images in slots by tenant."""
        return Counter(tenant for batch in self._batches.values() for tenant, _ in batch.members)

    def _join(self, task: ImageTask) -> None:
        request = task.active.request
        try:
            # Nothing is done for what nobody will be there to take.
            self._scheduler.check_deadline(task.active, images=1)
        except HopelessDeadlineError as error:
            task.active.fail(error)
            return
        waited = time.monotonic() - task.active.start_time
        span = task.active.span
        self._metrics.queue_wait_seconds.labels(task.priority.name.lower()).observe(waited, span.exemplar)
        span.record("queue", waited, image=task.index)
        own_unet = None if task.conditioning is None else task.conditioning.own_unet
        bucket = (request.base_model, request.height, request.width, "" if own_unet is None else own_unet.key)
        try:
            if bucket not in self._batches:
                self._batches[bucket] = SlotBatch(
                    task.checked.base_model, request.height, request.width, self._lanes, own_unet, self._acceleration
                )
            self._batches[bucket].join(task)
        except Exception as error:
            self._tell(StepOutcome(task, 0, error=failed_image(task, error)))

    def _pass(self, bucket: Bucket) -> None:
        batch = self._batches[bucket]
        images, rows = len(batch), batch.rows
        members = {each: other.members for each, other in self._batches.items()}
        start = time.monotonic()
        outcomes = batch.advance()
        seconds = time.monotonic() - start
        self._turns.spent(bucket, seconds, members)
        self._scheduler.pace.report(batch.size, images, seconds)
        self._metrics.passes.inc()
        self._metrics.pass_seconds.observe(seconds)
        self._metrics.batch_rows.observe(rows)
        self._metrics.image_steps.inc(images)
        for outcome in outcomes:
            self._tell(outcome)

    def _tell(self, outcome: StepOutcome) -> None:
        task = outcome.task
        if outcome.error is not None:
            if isinstance(outcome.error, OutOfMemoryError):
                self._metrics.out_of_memory.labels("denoise").inc()
            self._metrics.failed_images.labels(outcome.error.reason).inc()
            task.active.fail(outcome.error)
            return
        task.active.tell(Progress(task.index, outcome.step, task.steps))
        if outcome.clean is not None:
            self._decoding.preview(task, outcome.step, outcome.clean)
        if outcome.latents is not None:
            seconds = time.monotonic() - outcome.start_time
            self._metrics.end_stage("denoise", seconds, task.active.span, image=task.index, steps=task.steps)
            self._scheduler.begin_decoding()
            self._decoding.finish(task, outcome.latents)
