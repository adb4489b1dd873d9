"""Who waits and who is next: accepted, checked, encoding, ready, in a slot."""

import threading
import time
from collections import deque

from detex_core.errors import ResourceExhaustedError, UnavailableError
from detex_generator.engine.active_request import ActiveRequest, ImageTask
from detex_generator.engine.fair_queue import FairQueue

_SPEED_MEMORY = 0.9
_DECODING_SLOTS = 2  # images that may wait for decoding, for each slot
_SHORTEST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 600.0


class Scheduler:
    """The waiting side of the engine; safe to use from several threads.

    Images of a request wait in a queue that is fair between tenants. Only the next few are encoded ahead of a free
    slot (`lookahead`), so that the memory of keys and values is bounded by slots and not by the length of the queue.
    """

    def __init__(self, *, slots: int, capacity: int, lookahead: int) -> None:
        """Begin with nothing waiting.

        Args:
            slots: Images that are denoised at the same time.
            capacity: Images that may wait for a slot.
            lookahead: Images that may be encoded or ready ahead of a free slot.
        """
        self._slots = slots
        self._capacity = capacity
        self._lookahead = lookahead
        self._condition = threading.Condition()
        self._waiting: dict[ActiveRequest, int] = {}  # images of each request that have no slot yet
        self._waiting_images = 0
        self._queue: FairQueue[ImageTask] = FairQueue()
        self._encoding = 0
        self._ready: deque[ImageTask] = deque()
        self._live = 0
        self._decoding = 0
        self._draining = False
        self._stopped = False
        self._steps_per_second: float | None = None

    @property
    def waiting_images(self) -> int:
        """Images that wait for a slot."""
        return self._waiting_images

    @property
    def live_images(self) -> int:
        """Images that are in slots."""
        return self._live

    def accept(self, active: ActiveRequest) -> int:
        """Take a request, or refuse it.

        Returns:
            Images that must leave a slot before its first one gets one.

        Raises:
            UnavailableError: The engine drains or has ended.
            ResourceExhaustedError: Too many images wait; the retry delay follows from the present speed.
        """
        count = active.request.count
        with self._condition:
            if self._draining:
                raise UnavailableError("The generator is shutting down and takes no new requests.", reason="DRAINING")
            if self._waiting_images + count > self._capacity:
                raise ResourceExhaustedError(
                    f"{self._waiting_images} images wait for a slot and {count} more would exceed the queue of "
                    f"{self._capacity}.",
                    reason="QUEUE_FULL",
                    retry_delay_seconds=self._seconds_until_room(count),
                )
            position = max(0, self._live + self._waiting_images - self._slots + 1)
            self._waiting[active] = count
            self._waiting_images += count
            return position

    def enqueue(self, tasks: list[ImageTask]) -> None:
        """Queue the images of an accepted and checked request; dropped where the request has ended meanwhile."""
        with self._condition:
            for task in tasks:
                if task.active in self._waiting:
                    self._queue.append(task.active.tenant, task)

    def next_to_encode(self) -> ImageTask | None:
        """The next image to encode; None where none waits or enough are encoded ahead of the slots.

        Each image returned must come back by `add_ready` or `drop_encoding`.
        """
        with self._condition:
            if self._encoding + len(self._ready) >= self._lookahead:
                return None
            task = self._queue.take()
            if task is not None:
                self._encoding += 1
            return task

    def add_ready(self, task: ImageTask) -> None:
        """An encoded image is ready for a slot; dropped where its request has ended meanwhile."""
        with self._condition:
            self._encoding -= 1
            if task.active in self._waiting:
                task.ready_time = time.monotonic()
                self._ready.append(task)
                self._condition.notify_all()

    def drop_encoding(self) -> None:
        """An image could not be encoded."""
        with self._condition:
            self._encoding -= 1

    def forget(self, active: ActiveRequest) -> None:
        """Take all waiting images of a request out; its images in slots leave at the next step boundary."""
        with self._condition:
            waiting = self._waiting.pop(active, 0)
            if not waiting:
                return
            self._waiting_images -= waiting
            self._queue.remove(lambda task: task.active is active)
            self._ready = deque(task for task in self._ready if task.active is not active)
            self._condition.notify_all()

    def take_ready(self, live: int) -> list[ImageTask] | None:
        """Images that join at this step boundary; blocks while there is nothing to do at all.

        Args:
            live: Images that are in slots now.

        Returns:
            At most as many images as there are free slots; None once the engine is stopped.
        """
        with self._condition:
            self._live = live
            while not (live or self._stopped or (self._ready and self._room(live) > 0)):
                self._condition.wait()
            if self._stopped:
                return None
            joining: list[ImageTask] = []
            while self._ready and len(joining) < self._room(live):
                task = self._ready.popleft()
                joining.append(task)
                self._waiting_images -= 1
                self._waiting[task.active] -= 1
                if not self._waiting[task.active]:
                    del self._waiting[task.active]
            self._live = live + len(joining)
            return joining

    def begin_decoding(self) -> None:
        """An image has left its slot and is to be decoded."""
        with self._condition:
            self._decoding += 1

    def end_decoding(self) -> None:
        """An image has been decoded."""
        with self._condition:
            self._decoding -= 1
            self._condition.notify_all()

    def report_speed(self, steps: int, seconds: float) -> None:
        """Tell how many denoising steps, summed over images, were done in how many seconds."""
        if seconds > 0:
            speed = steps / seconds
            with self._condition:
                known = self._steps_per_second
                self._steps_per_second = speed if known is None else _SPEED_MEMORY * known + (1 - _SPEED_MEMORY) * speed

    def drain(self) -> None:
        """Refuse new requests from now on; accepted ones go on."""
        with self._condition:
            self._draining = True

    def stop(self) -> None:
        """Refuse new requests and let the step loop end at its next boundary."""
        with self._condition:
            self._draining = True
            self._stopped = True
            self._condition.notify_all()

    def _room(self, live: int) -> int:
        """Images that may join. Where decoding lags behind, slots stay empty, so that latents do not pile up."""
        return min(self._slots - live, _DECODING_SLOTS * self._slots - self._decoding)

    def _seconds_until_room(self, count: int) -> float:
        """Time until `count` images fit into the queue at the present speed; called with the lock held."""
        if self._steps_per_second is None or not self._waiting_images:
            return 1.0
        must_start = self._waiting_images + count - self._capacity
        steps = sum(active.request.steps * images for active, images in self._waiting.items()) / self._waiting_images
        seconds = must_start * steps / self._steps_per_second
        return min(max(seconds, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
