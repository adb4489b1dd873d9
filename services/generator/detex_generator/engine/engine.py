"""The engine: takes requests, gives events, and holds its parts together."""

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from detex_core.errors import DetexError, UnavailableError
from detex_core.grpc_server.status import as_domain_error
from detex_core.tenant_threads import TenantThreads
from detex_core.tracing import current_span
from detex_generator.compute.acceleration import Acceleration
from detex_generator.compute.device_errors import is_out_of_memory
from detex_generator.compute.row_lanes import use_cores
from detex_generator.engine.active_request import ActiveRequest, ImageTask
from detex_generator.engine.decoding import Decoding
from detex_generator.engine.events import EventStream, Queued
from detex_generator.engine.failures import EngineStoppedError, OutOfMemoryError
from detex_generator.engine.intake.admission import Admission
from detex_generator.engine.scheduling.scheduler import Scheduler
from detex_generator.engine.step_loop import StepLoop
from detex_generator.metrics import GeneratorMetrics
from detex_generator.request.generation_request import GenerationRequest
from detex_generator.settings import GeneratorSettings

_logger = logging.getLogger(__name__)


class Engine:
    """Continuous batching of diffusion.

        submit -> check (threads) -> queues -> load, encode (threads) -> slot (step loop) -> decode (threads) -> caller

    What waits for the object store (checking, loading) has other threads than what computes (encoding, decoding), so
    that a store that is slow or away holds up only requests that need it.

    Every image of a request is an item of its own. What an image looks like depends on its request and seed alone, not
    on what else is being drawn.
    """

    def __init__(
        self,
        settings: GeneratorSettings,
        admission: Admission,
        metrics: GeneratorMetrics,
        *,
        acceleration: Acceleration | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            settings: Slots, limits and threads.
            admission: Checks and encodes requests.
            metrics: Receives everything.
            acceleration: Kernels and graphs of a GPU; None on a CPU.
            on_failure: Called, from the engine's thread, when the step loop has come to an unplanned end.
        """
        self._admission = admission
        self._metrics = metrics
        self._on_failure = on_failure
        self._scheduler = Scheduler(
            slots=settings.slots,
            capacity=settings.max_waiting_images,
            lookahead=settings.slots,
            tenant_capacity=settings.max_waiting_images_per_tenant,
            loading_limit=settings.loading_threads,
        )
        self._checking = TenantThreads(settings.loading_threads, "checking")
        self._loading = TenantThreads(settings.loading_threads, "loading")
        cores = settings.denoising_threads or torch.get_num_threads()
        self._encoding = ThreadPoolExecutor(
            settings.admission_threads, "encoding", initializer=use_cores, initargs=(cores,)
        )
        # Who waits for memory for pictures must not keep those from a thread who send none.
        self._pictures = TenantThreads(settings.loading_threads, "pictures", initializer=use_cores, initargs=(cores,))
        self._decoding = Decoding(settings.decoding_threads, cores, metrics, self._scheduler.end_decoding)
        self._step_loop = StepLoop(
            self._scheduler,
            self._decoding,
            metrics,
            cores=cores,
            acceleration=acceleration,
            on_room=self._encode_more,
            on_failure=self._fail,
        )
        self._lock = threading.Lock()
        self._active: set[ActiveRequest] = set()
        self._failed = threading.Event()
        metrics.slots.set(settings.slots)
        metrics.waiting_images.set_function(lambda: self._scheduler.waiting_images)
        metrics.slots_in_use.set_function(lambda: self._scheduler.live_images)

    def start(self) -> None:
        """Begin to work."""
        self._step_loop.start()

    @property
    def healthy(self) -> bool:
        """False once the step loop has come to an unplanned end."""
        return not self._failed.is_set()

    @property
    def active_requests(self) -> int:
        """Requests that have been accepted and have not ended."""
        return len(self._active)

    def submit(self, request: GenerationRequest, tenant: str, *, deadline: float | None = None) -> ActiveRequest:
        """Take a request; call within a running event loop, which then reads `stream` of the answer.

        The caller must call `cancel` of the answer when it stops reading; after the end that is without effect.

        Args:
            request: What to draw.
            tenant: Whose request it is.
            deadline: Time of `time.monotonic` after which nobody waits for it.

        Raises:
            ResourceExhaustedError: The queue is full; tells when to try again.
            HopelessDeadlineError: The deadline cannot be met.
            UnavailableError: The engine drains or has stopped.
        """
        if self._failed.is_set():
            raise EngineStoppedError
        active = ActiveRequest(
            uuid.uuid4().hex,
            tenant,
            request,
            EventStream(asyncio.get_running_loop()),
            deadline=deadline,
            on_end=self._ended,
            span=current_span().begin("request", images=request.count, steps=request.steps),
        )
        try:
            position = self._scheduler.accept(active)
        except DetexError as error:
            active.span.end(error.code.name)
            raise
        with self._lock:
            self._active.add(active)
        active.tell(Queued(active.request_id, position))
        try:
            threads = self._pictures if request.has_pictures else self._checking
            threads.submit(tenant, partial(self._check, active))
        except RuntimeError:
            active.fail(UnavailableError("The generator is shutting down.", reason="DRAINING"))
        if self._failed.is_set():
            active.fail(EngineStoppedError())
        return active

    def drain(self) -> None:
        """Refuse new requests from now on; accepted ones are finished."""
        self._scheduler.drain()

    def give_up(self) -> None:
        """End all requests that are not done, each with an error that tells its caller to try elsewhere."""
        self._abandon(UnavailableError("The generator was shut down before the request was done.", reason="DRAINING"))

    def close(self, timeout_seconds: float = 10.0) -> None:
        """End. Requests that are not done are told so."""
        self._scheduler.stop()
        self._step_loop.join(timeout_seconds)
        self.give_up()
        for threads in (self._checking, self._loading, self._pictures):
            threads.shutdown()
        self._encoding.shutdown(wait=False, cancel_futures=True)
        self._decoding.close()

    def _check(self, active: ActiveRequest) -> None:
        if active.over:
            active.expire()
            return
        try:
            with self._metrics.stage("check", active.span):
                checked = self._admission.check(active.request, active.tenant)
        except BaseException as error:
            active.fail(as_domain_error(error))
        else:
            self._scheduler.enqueue([ImageTask(active, index, checked) for index in range(active.request.count)])
            self._encode_more()

    def _encode_more(self) -> None:
        while (task := self._scheduler.next_to_encode()) is not None:
            try:
                if self._admission.needs_loading(task.checked):
                    self._scheduler.begin_loading(task)
                    self._loading.submit(task.active.tenant, partial(self._load, task))
                else:
                    self._submit_encoding(task)
            except RuntimeError:  # the threads have ended, and with them all requests
                return

    def _submit_encoding(self, task: ImageTask) -> None:
        if task.active.request.edit is not None:
            self._pictures.submit(task.active.tenant, partial(self._encode, task))
        else:
            self._encoding.submit(self._encode, task)

    def _load(self, task: ImageTask) -> None:
        """Bring the concepts of an image into memory; whether that succeeds or not, encoding finds out and tells."""
        try:
            if not task.active.over:
                with self._metrics.stage("load", task.active.span, image=task.index):
                    task.concepts = self._admission.load(task.checked)
        except BaseException as error:
            task.active.fail(as_domain_error(error))
        finally:
            self._scheduler.end_loading(task)
        try:
            self._submit_encoding(task)
        except RuntimeError:
            return
        self._encode_more()

    def _encode(self, task: ImageTask) -> None:
        active = task.active
        try:
            if active.over:
                active.expire()
            else:
                with self._metrics.stage("encode", active.span, image=task.index):
                    task.conditioning = self._admission.encode(task.checked)
        except BaseException as error:
            if is_out_of_memory(error):
                self._metrics.out_of_memory.labels("encode").inc()
                error = OutOfMemoryError(task.index)
            active.fail(as_domain_error(error))
        finally:
            task.concepts = ()
            if task.conditioning is None:
                self._scheduler.drop_encoding(task)
            else:
                self._scheduler.add_ready(task)
        self._encode_more()

    def _ended(self, active: ActiveRequest, outcome: str) -> None:
        with self._lock:
            self._active.discard(active)
        self._metrics.requests.labels(outcome).inc()
        self._metrics.request_seconds.observe(active.age_seconds, active.span.exemplar)
        extra = {"request_id": active.request_id, "tenant": active.tenant, "outcome": outcome}
        if active.span.trace_id:
            extra["trace_id"] = active.span.trace_id
        _logger.info(
            "request ended", extra=extra | {"images": active.request.count, "seconds": round(active.age_seconds, 3)}
        )
        self._scheduler.forget(active)
        self._encode_more()

    def _fail(self, error: BaseException) -> None:
        _logger.critical("The step loop has stopped", exc_info=error)
        self._failed.set()
        self._scheduler.stop()
        self._abandon(EngineStoppedError())
        self._on_failure(error)

    def _abandon(self, error: DetexError) -> None:
        with self._lock:
            left = list(self._active)
        for active in left:
            active.fail(error)
