"""What a caller hears of a request, and the way from the engine's threads to the caller's event loop."""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass

from detex_generator.request.provenance import Provenance


@dataclass(frozen=True)
class Queued:
    """The request has been taken.

    Attributes:
        request_id: Id given by the engine.
        queue_position: Images that must leave a slot before the first of this request gets one; 0 where it begins at
            the next step.
    """

    request_id: str
    queue_position: int


@dataclass(frozen=True)
class Progress:
    """Image `image_index` has done `step` of `total_steps` denoising steps."""

    image_index: int
    step: int
    total_steps: int


@dataclass(frozen=True)
class Preview:
    """The clean image as the model guesses it after `step` denoising steps, as PNG."""

    image_index: int
    step: int
    png: bytes


@dataclass(frozen=True)
class FinishedImage:
    """A finished image as PNG with its provenance inside."""

    image_index: int
    png: bytes
    provenance: Provenance


Event = Queued | Progress | Preview | FinishedImage


class EventStream:
    """Events put by any thread, read by one coroutine.

    A reader that lags behind does not let memory grow: of the progress of one image, and of its previews, only the
    newest is kept until it is read. Everything else is kept.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._error: Exception | None = None

    def put(self, event: Event) -> None:
        """Append an event; without effect once the stream is closed."""
        with self._lock:
            if self._closed:
                return
            if isinstance(event, Progress | Preview):
                self._drop_older(event)
            self._events.append(event)
        self._wake()

    def close(self, error: Exception | None = None) -> None:
        """End the stream after what was put; the reader then gets `error`, or the end. Only the first call counts."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._error = error
        self._wake()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> Event:
        while True:
            with self._lock:
                self._arrived.clear()
                if self._events:
                    return self._events.popleft()
                if self._closed:
                    if self._error is not None:
                        raise self._error
                    raise StopAsyncIteration
            await self._arrived.wait()

    def _drop_older(self, event: Progress | Preview) -> None:
        for index, waiting in enumerate(self._events):
            if type(waiting) is type(event) and waiting.image_index == event.image_index:
                del self._events[index]
                return

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            # The reader's loop is closed, so there is no reader any more.
            return
