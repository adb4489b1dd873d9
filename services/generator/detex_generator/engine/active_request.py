"""A request while the engine works on it, and its images one by one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from detex_core.deadline import is_over
from detex_core.errors import DetexError
from detex_core.tracing import NO_SPAN, Span
from detex_diffusion.concept import Concept
from detex_generator.engine.events import Event, EventStream, FinishedImage
from detex_generator.engine.failures import DeadlineExceededError
from detex_generator.engine.intake.admission import CheckedRequest, Conditioning
from detex_generator.request.generation_request import GenerationRequest, Priority


class ActiveRequest:
    """A request between acceptance and its end. Safe to use from several threads.

    It ends once: with all images delivered, with an error, or cancelled by its caller. After that every thread that
    comes across one of its images drops it.

    Attributes:
        request_id: Id for logs and traces.
        tenant: Whose request it is.
        request: What was asked.
        priority: Its class; that of the request, or a lower one where its tenant asks for too much of that.
        deadline: Time (of `time.monotonic`) after which nobody waits for it; None without a deadline.
        start_time: When it was accepted (of `time.monotonic`).
        stream: What the caller hears.
        span: What traces tell of it.
    """

    def __init__(
        self,
        request_id: str,
        tenant: str,
        request: GenerationRequest,
        stream: EventStream,
        *,
        deadline: float | None,
        on_end: Callable[["ActiveRequest", str], None],
        span: Span = NO_SPAN,
    ) -> None:
        """Begin.

        Args:
            request_id: Id for logs and traces.
            tenant: Whose request it is.
            request: What was asked.
            stream: Where events go.
            deadline: Time of `time.monotonic` after which nobody waits.
            on_end: Called once, from any thread, with the outcome: `OK`, or the name of a gRPC status.
            span: What traces tell of it; ends with it.
        """
        self.request_id = request_id
        self.tenant = tenant
        self.request = request
        self.priority = request.priority
        self.deadline = deadline
        self.start_time = time.monotonic()
        self.stream = stream
        self.span = span
        self._on_end = on_end
        self._lock = threading.Lock()
        self._missing = set(range(request.count))
        self._ended = False

    @property
    def over(self) -> bool:
        """True once it has ended or its deadline has passed."""
        return self._ended or (self.deadline is not None and time.monotonic() >= self.deadline)

    @property
    def age_seconds(self) -> float:
        """Time since it was accepted."""
        return time.monotonic() - self.start_time

    def tell(self, event: Event) -> None:
        """Pass an event to the caller; without effect after the end."""
        if not self._ended:
            self.stream.put(event)

    def deliver(self, image: FinishedImage) -> None:
        """Pass a finished image to the caller; the last one ends the request. Ends it where it comes too late."""
        if self.over:
            self.expire()
            return
        self.tell(image)
        with self._lock:
            self._missing.discard(image.image_index)
            complete = not self._missing
        if complete:
            self._end("OK", None)

    def fail(self, error: DetexError) -> None:
        """End the request with an error."""
        self._end(error.code.name, error)

    def cancel(self) -> None:
        """End the request because its caller has cancelled; unlike a deadline that has passed."""
        if self.deadline is not None and is_over(self.deadline - time.monotonic()):
            self.expire()
        else:
            self._end("CANCELLED", None)

    def expire(self) -> None:
        """End the request because its deadline has passed."""
        self.fail(DeadlineExceededError())

    def _end(self, outcome: str, error: DetexError | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        # First the books, so that a caller who hears of the end finds its place free.
        self._on_end(self, outcome)
        self.span.end(outcome)
        self.stream.close(error)


@dataclass(eq=False)
class ImageTask:
    """One image of a request on its way to, through and out of a slot.

    Attributes:
        active: Its request.
        index: Which image of the request, from 0.
        checked: What the admission found out about the request.
        conditioning: Keys and values of its prompts; set before it is ready for a slot.
        concepts: Its concepts between loading and encoding, so that no cache drops them in between.
        ready_time: When it became ready (of `time.monotonic`).
    """

    active: ActiveRequest
    index: int
    checked: CheckedRequest
    conditioning: Conditioning | None = None
    concepts: tuple[Concept, ...] = ()
    ready_time: float = field(default_factory=time.monotonic)

    @property
    def priority(self) -> Priority:
        """Class of its request, as it counts."""
        return self.active.priority

    @property
    def seed(self) -> int:
        """Seed of this image."""
        return self.active.request.seed + self.index

    @property
    def steps(self) -> int:
        """Denoising steps that are done; fewer than the request's where it begins from a photo."""
        return self.checked.step_table.steps
