"""A queue that gives tenants equal shares of the work, and puts the nearest deadline of a tenant first."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(order=True)
class _Waiting(Generic[Item]):
    deadline: float
    number: int
    item: Item = field(compare=False)
    cost: float = field(compare=False)


class FairQueue(Generic[Item]):
    """Equal shares of cost between tenants; within one tenant the earliest deadline first, then first in, first out.

    Start-time fair queueing (Goyal, Vin and Cheng 1996, "Start-time fair queuing: a scheduling algorithm for integrated
    services packet switching networks"): each tenant has a virtual time that grows by the cost of what it is given, and
    the tenant that is furthest behind is next. One that comes back after a pause begins where the others are: it can
    neither save up turns nor lose them. Not safe to use from several threads at once: its owner locks.
    """

    def __init__(self) -> None:
        self._queues: dict[str, list[_Waiting[Item]]] = {}
        self._times: dict[str, float] = {}  # virtual time of each tenant that waits or is ahead of the others
        self._turns: dict[str, int] = {}  # who of equals came first
        self._now = 0.0
        self._numbers = count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, tenant: str, item: Item, *, cost: float = 1.0, deadline: float | None = None) -> None:
        """Put an item in.

        Args:
            tenant: Whose it is.
            item: The item.
            cost: How much of the tenant's share it takes, above 0.
            deadline: Items of a tenant with an earlier one go first; None comes last.
        """
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = []
            self._times[tenant] = max(self._now, self._times.get(tenant, 0.0))
            self._turns[tenant] = next(self._numbers)
        heapq.heappush(queue, _Waiting(math.inf if deadline is None else deadline, next(self._numbers), item, cost))
        self._length += 1

    def take(self, may: Callable[[str], bool] = lambda tenant: True) -> Item | None:
        """Remove and return the next item of the tenant that is furthest behind; None where nothing waits.

        Args:
            may: Which tenants count.
        """
        allowed = [name for name in self._queues if may(name)]
        if not allowed:
            return None
        tenant = min(allowed, key=lambda name: (self._times[name], self._turns[name]))
        waiting = heapq.heappop(self._queues[tenant])
        self._length -= 1
        self._now = max(self._now, self._times[tenant])
        self._times[tenant] += waiting.cost
        self._turns[tenant] = next(self._numbers)
        if not self._queues[tenant]:
            self._leave(tenant)
        return waiting.item

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Remove and return all items that are unwanted; the others keep their order and shares."""
        removed: list[_Waiting[Item]] = []
        for tenant, queue in list(self._queues.items()):
            removed.extend(each for each in queue if unwanted(each.item))
            kept = [each for each in queue if not unwanted(each.item)]
            heapq.heapify(kept)
            self._queues[tenant] = kept
            if not kept:
                self._leave(tenant)
        self._length -= len(removed)
        return [each.item for each in sorted(removed, key=lambda each: each.number)]

    def _leave(self, tenant: str) -> None:
        del self._queues[tenant], self._turns[tenant]
        if not self._queues:
            # Nobody is behind anybody: start over, so that numbers do not grow and no tenant is remembered.
            self._times.clear()
            self._now = 0.0
            return
        self._times = {name: time for name, time in self._times.items() if name in self._queues or time > self._now}
