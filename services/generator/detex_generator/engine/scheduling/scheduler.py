"""Who waits and who is next: accepted, checked, loading, encoding, ready, in a slot."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from detex_core.errors import ResourceExhaustedError, UnavailableError
from detex_core.fair_queue import FairQueue
from detex_generator.engine.active_request import ActiveRequest, ImageTask
from detex_generator.engine.failures import HopelessDeadlineError
from detex_generator.engine.scheduling.class_turns import ClassTurns
from detex_generator.engine.scheduling.pace import Pace
from detex_generator.request.generation_request import Priority

_SMALL_QUEUE = 32
_DECODING_SLOTS = 2  # images that may wait for decoding, for each slot
_SHORTEST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 600.0


class Scheduler:
    """The waiting side of the engine; safe to use from several threads.

    Slots go to priority classes by `ClassTurns`, within a class to tenants by equal shares of the work, and within a
    tenant to the earliest deadline. Only the next few images of each class are encoded ahead of a free slot
    (`lookahead`, and once more as many for tenants that have none ahead), so that the memory of keys and values is
    bounded by slots and not by the length of the queue.

    Nobody can take all there is. A quarter of the queue is kept for tenants that have less than a quarter of it
    waiting, an eighth of it is closed to the lowest class and a sixteenth to all but the highest. Where a tenant has
    twice as many images of the highest class waiting as there are slots, further ones count as normal. And some slots
    beyond those of all are for images of tenants that have none in a slot, and of the highest class: they need not wait
    until an image of another is done.

    Attributes:
        pace: How fast the engine is.
    """

    def __init__(
        self, *, slots: int, capacity: int, lookahead: int, tenant_capacity: int = 0, loading_limit: int = 8
    ) -> None:
        """Begin with nothing waiting.

        Args:
            slots: Images that are denoised at the same time.
            capacity: Images that may wait for a slot.
            lookahead: Images of each class that may be encoded or ready ahead of a free slot.
            tenant_capacity: Images of one tenant that may wait for a slot; 0 for no bound but `capacity`.
            loading_limit: Images of each tenant whose concepts may be on their way from the object store, beyond the
                lookahead.
        """
        self.pace = Pace()
        self._slots = slots
        self._capacity = capacity
        self._tenant_capacity = tenant_capacity or capacity
        self._lookahead = lookahead
        self._loading_limit = loading_limit
        self._condition = threading.Condition()
        self._waiting: dict[ActiveRequest, int] = {}  # images of each request that have no slot yet
        self._waiting_images = 0
        self._tenant_images: Counter[str] = Counter()
        self._high_images: Counter[str] = Counter()  # of the highest class
        self._class_images: Counter[Priority] = Counter()
        self._queues: dict[Priority, FairQueue[ImageTask]] = {each: FairQueue() for each in Priority}
        self._loading: Counter[str] = Counter()  # by tenant
        self._encoding: Counter[Priority] = Counter()
        self._ready: dict[Priority, deque[ImageTask]] = {each: deque() for each in Priority}
        self._ahead: Counter[tuple[Priority, str]] = Counter()  # encoding or ready, by tenant
        self._extra_slots = max(1, slots // 4)
        self._turns = ClassTurns()
        self._live = 0
        self._decoding = 0
        self._draining = False
        self._stopped = False

    @property
    def waiting_images(self) -> int:
        """Images that wait for a slot."""
        return self._waiting_images

    @property
    def live_images(self) -> int:
        """Images that are in slots."""
        return self._live

    def waiting_images_of(self, priority: Priority) -> int:
        """Images of a class that wait for a slot."""
        return self._class_images[priority]

    def accept(self, active: ActiveRequest) -> int:
        """Take a request, or refuse it.

        Returns:
            Images that must leave a slot before its first one gets one, as far as they are of its class or a higher.

        Raises:
            UnavailableError: The engine drains or has ended.
            ResourceExhaustedError: Too many images wait, in all or of this tenant; the retry delay follows from the
                present speed.
            HopelessDeadlineError: It could not be done before its deadline if all slots were its own.
        """
        count = active.request.count
        with self._condition:
            if self._draining:
                raise UnavailableError("The generator is shutting down and takes no new requests.", reason="DRAINING")
            self._lower_bulk(active)
            self._check_room(active.tenant, active.priority, count)
            self.check_deadline(active, images=count)
            ahead = sum(images for each, images in self._class_images.items() if each >= active.priority)
            position = max(0, self._live + ahead - self._slots + 1)
            self._waiting[active] = count
            self._count(active, count)
            return position

    def check_deadline(self, active: ActiveRequest, *, images: int) -> None:
        """Raise HopelessDeadlineError where images that have no slot yet cannot be done before the deadline."""
        if active.deadline is None:
            return
        request = active.request
        size = request.base_model, request.height, request.width
        least = self.pace.least_seconds(size, steps=request.steps_to_do, images=images, slots=self._slots)
        left = active.deadline - time.monotonic()
        if least > left:
            raise HopelessDeadlineError(least, left)

    def enqueue(self, tasks: list[ImageTask]) -> None:
        """Queue the images of an accepted and checked request; dropped where the request has ended meanwhile."""
        with self._condition:
            for task in tasks:
                active, request = task.active, task.active.request
                if active in self._waiting:
                    cost = request.steps_to_do * (1 + request.guided) * request.width * request.height
                    self._queues[active.priority].append(active.tenant, task, cost=cost, deadline=active.deadline)

    def next_to_encode(self) -> ImageTask | None:
        """The next image to encode; None where none waits or enough are encoded ahead of the slots.

        Each image returned must come back by `add_ready` or `drop_encoding`.
        """
        with self._condition:
            for priority in sorted(Priority, reverse=True):
                ahead = self._encoding[priority] + len(self._ready[priority])
                if ahead >= 2 * self._lookahead:
                    continue
                task = self._queues[priority].take(self._may_be_encoded(priority, ahead))
                if task is not None:
                    self._encoding[priority] += 1
                    self._ahead[priority, task.active.tenant] += 1
                    return task
        return None

    def _may_be_encoded(self, priority: Priority, ahead: int) -> Callable[[str], bool]:
        """Who may have another image encoded: who does not wait for many concepts.

        Where enough are ahead, only tenants that have none among them.
        """

        def may(tenant: str) -> bool:
            has_turn = ahead < self._lookahead or (priority, tenant) not in self._ahead
            return has_turn and self._loading.get(tenant, 0) < self._loading_limit

        return may

    def begin_loading(self, task: ImageTask) -> None:
        """An image to encode waits for the object store first, so that others may be encoded before it."""
        with self._condition:
            self._encoding[task.priority] -= 1
            self._loading[task.active.tenant] += 1

    def end_loading(self, task: ImageTask) -> None:
        """The object store has answered, or has failed."""
        with self._condition:
            self._loading[task.active.tenant] -= 1
            if not self._loading[task.active.tenant]:
                del self._loading[task.active.tenant]
            self._encoding[task.priority] += 1

    def add_ready(self, task: ImageTask) -> None:
        """An encoded image is ready for a slot; dropped where its request has ended meanwhile."""
        with self._condition:
            self._encoding[task.priority] -= 1
            if task.active in self._waiting:
                task.ready_time = time.monotonic()
                self._ready[task.priority].append(task)
                self._condition.notify_all()
            else:
                self._no_longer_ahead(task)

    def drop_encoding(self, task: ImageTask) -> None:
        """An image could not be encoded."""
        with self._condition:
            self._encoding[task.priority] -= 1
            self._no_longer_ahead(task)

    def forget(self, active: ActiveRequest) -> None:
        """Take all waiting images of a request out; its images in slots leave at the next step boundary."""
        with self._condition:
            waiting = self._waiting.pop(active, 0)
            if not waiting:
                return
            priority = active.priority
            self._count(active, -waiting)
            self._queues[priority].remove(lambda task: task.active is active)
            for task in self._ready[priority]:
                if task.active is active:
                    self._no_longer_ahead(task)
            self._ready[priority] = deque(task for task in self._ready[priority] if task.active is not active)
            self._condition.notify_all()

    def take_ready(self, tenants: Mapping[str, int]) -> list[ImageTask] | None:
        """Images that join at this step boundary; blocks while there is nothing to do at all.

        Args:
            tenants: Images that are in slots now, by tenant.

        Returns:
            At most as many images as there are free slots; None once the engine is stopped.
        """
        with self._condition:
            live, in_slots = sum(tenants.values()), Counter(tenants)
            self._live = live
            while not (live or self._stopped or (any(self._ready.values()) and self._room(live) > 0)):
                self._condition.wait()
            if self._stopped:
                return None
            joining: list[ImageTask] = []
            while (task := self._next_ready(live + len(joining), in_slots)) is not None:
                joining.append(task)
                in_slots[task.active.tenant] += 1
                self._no_longer_ahead(task)
                self._count(task.active, -1)
                self._waiting[task.active] -= 1
                if not self._waiting[task.active]:
                    del self._waiting[task.active]
            self._live = live + len(joining)
            return joining

    def _next_ready(self, live: int, in_slots: Counter[str]) -> ImageTask | None:
        """The next image for a slot, taken out; called with the lock held."""
        room = self._room(live)
        if room <= -self._extra_slots:
            return None

        def may(task: ImageTask) -> bool:
            return room > 0 or task.priority is Priority.HIGH or not in_slots[task.active.tenant]

        waiting = [each for each in Priority if any(map(may, self._ready[each]))]
        if not waiting:
            return None
        # Of a class, the tenant that has the fewest images in slots; of one tenant, who was ready first.
        chosen = self._ready[self._turns.choose(waiting)]
        task = min(filter(may, chosen), key=lambda each: in_slots[each.active.tenant])
        chosen.remove(task)
        return task

    def begin_decoding(self) -> None:
        """An image has left its slot and is to be decoded."""
        with self._condition:
            self._decoding += 1

    def end_decoding(self) -> None:
        """An image has been decoded."""
        with self._condition:
            self._decoding -= 1
            self._condition.notify_all()

    def drain(self) -> None:
        """Refuse new requests from now on; accepted ones continue."""
        with self._condition:
            self._draining = True

    def stop(self) -> None:
        """Refuse new requests and let the step loop end at its next boundary."""
        with self._condition:
            self._draining = True
            self._stopped = True
            self._condition.notify_all()

    def _count(self, active: ActiveRequest, images: int) -> None:
        """So many more images of a request wait; called with the lock held."""
        self._waiting_images += images
        self._class_images[active.priority] += images
        if active.priority is Priority.HIGH:
            self._high_images[active.tenant] += images
            if not self._high_images[active.tenant]:
                del self._high_images[active.tenant]
        self._tenant_images[active.tenant] += images
        if not self._tenant_images[active.tenant]:
            del self._tenant_images[active.tenant]

    def _no_longer_ahead(self, task: ImageTask) -> None:
        key = task.priority, task.active.tenant
        self._ahead[key] -= 1
        if not self._ahead[key]:
            del self._ahead[key]

    def _lower_bulk(self, active: ActiveRequest) -> None:
        """The highest class is for who looks at a screen: what a tenant asks of it beyond that counts as normal."""
        waiting = self._high_images.get(active.tenant, 0)
        if active.priority is Priority.HIGH and waiting and waiting + active.request.count > 2 * self._slots:
            active.priority = Priority.NORMAL

    def _open_places(self, tenant: str, priority: Priority, count: int) -> int:
        """Images that may wait in all, as far as a tenant and a class are concerned.

        Small queues have no places to keep; and what would fit into an empty queue is never refused for good.
        """
        of_tenant = self._tenant_images.get(tenant, 0)
        kept = {Priority.LOW: self._capacity // 8, Priority.NORMAL: self._capacity // 16, Priority.HIGH: 0}[priority]
        if self._capacity < _SMALL_QUEUE or not self._waiting_images:
            return self._capacity
        if of_tenant and of_tenant + count > self._capacity // 4:
            kept += self._capacity // 4
        return self._capacity - kept

    def _check_room(self, tenant: str, priority: Priority, count: int) -> None:
        """Raise ResourceExhaustedError where the queue has no room; called with the lock held."""
        of_tenant = self._tenant_images.get(tenant, 0)
        places = self._open_places(tenant, priority, count)
        if places < self._waiting_images + count <= self._capacity:
            raise ResourceExhaustedError(
                f"{self._waiting_images} images wait for a slot, {of_tenant} of them of this tenant; {count} more "
                f"would take places of the queue of {self._capacity} that are kept for other tenants or higher "
                "priorities.",
                reason="TENANT_QUEUE_FULL" if of_tenant else "QUEUE_FULL",
                retry_delay_seconds=self._seconds_until(self._waiting_images + count - places),
            )
        if self._waiting_images + count > self._capacity:
            raise ResourceExhaustedError(
                f"{self._waiting_images} images wait for a slot and {count} more would exceed the queue of "
                f"{self._capacity}.",
                reason="QUEUE_FULL",
                retry_delay_seconds=self._seconds_until(self._waiting_images + count - self._capacity),
            )
        if of_tenant + count > self._tenant_capacity:
            raise ResourceExhaustedError(
                f"{of_tenant} images of this tenant wait for a slot and {count} more would exceed its share of the "
                f"queue, {self._tenant_capacity}.",
                reason="TENANT_QUEUE_FULL",
                retry_delay_seconds=self._seconds_until(of_tenant + count - self._tenant_capacity),
            )

    def _room(self, live: int) -> int:
        """Images that may join. Where decoding lags behind, slots stay empty, so that latents do not pile up."""
        return min(self._slots - live, _DECODING_SLOTS * self._slots - self._decoding)

    def _seconds_until(self, started: int) -> float:
        """Time until so many waiting images have got a slot at the present speed; called with the lock held."""
        speed = self.pace.steps_per_second
        if speed is None or not self._waiting_images:
            return 1.0
        steps = (
            sum(active.request.steps_to_do * images for active, images in self._waiting.items()) / self._waiting_images
        )
        return min(max(started * steps / speed, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
