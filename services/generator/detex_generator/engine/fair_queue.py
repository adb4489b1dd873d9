"""A queue that serves tenants in turn."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First in, first out for each tenant; round robin between tenants.

    A tenant with many waiting items delays another's first item by one item, not by all of them. Not safe to use from
    several threads at once: its owner locks.
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[Item]] = {}
        self._turns: deque[str] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, tenant: str, item: Item) -> None:
        """Put an item behind all others of its tenant; a tenant that had none comes last in the round."""
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
            self._turns.append(tenant)
        queue.append(item)
        self._length += 1

    def take(self) -> Item | None:
        """Remove and return the next item of the tenant whose turn it is; None where nothing waits."""
        if not self._turns:
            return None
        tenant = self._turns.popleft()
        queue = self._queues[tenant]
        item = queue.popleft()
        self._length -= 1
        if queue:
            self._turns.append(tenant)
        else:
            del self._queues[tenant]
        return item

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Remove and return all items that are unwanted; the others keep their order and turns."""
        removed: list[Item] = []
        for tenant, queue in list(self._queues.items()):
            removed.extend(item for item in queue if unwanted(item))
            kept = deque(item for item in queue if not unwanted(item))
            if kept:
                self._queues[tenant] = kept
            else:
                del self._queues[tenant]
                self._turns.remove(tenant)
        self._length -= len(removed)
        return removed
