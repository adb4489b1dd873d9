"""Which batch of images has the next UNet pass: shares of time, whatever a pass of each takes."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Final, Generic, TypeVar

from detex_generator.request.generation_request import Priority

Batch = TypeVar("Batch", bound=Hashable)

CLASS_WEIGHTS: Final[Mapping[Priority, float]] = {Priority.LOW: 1.0, Priority.NORMAL: 4.0, Priority.HIGH: 16.0}
"""Shares of time of two tenants with images of these classes, of different sizes, beside each other."""


class PassTurns(Generic[Batch]):
    """Passes by start-time fair queueing (Goyal, Vin and Cheng 1996), in seconds as measured.

    A batch is as heavy as its tenants; a tenant weighs as its highest class, and its weight is shared by the batches it
    has images in. So a tenant cannot have more time by more sizes, and small images beside one large one of another
    tenant of their class have half of the time: they take at most twice as long as alone, and one pass of the large
    one. Belongs to the thread of the step loop.
    """

    def __init__(self) -> None:
        """No batch has had a turn."""
        self._times: dict[Batch, float] = {}
        self._now = 0.0

    def choose(self, batches: Iterable[Batch]) -> Batch:
        """The batch whose turn it is, of those that have images, at least one; the one that is furthest behind."""
        present = list(batches)
        # One that comes back begins where the others are: it neither saves up turns nor loses them.
        self._times = {batch: max(self._times.get(batch, self._now), self._now) for batch in present}
        chosen = min(present, key=self._times.__getitem__)
        self._now = self._times[chosen]
        return chosen

    def spent(self, batch: Batch, seconds: float, members: Mapping[Batch, Iterable[tuple[str, Priority]]]) -> None:
        """A pass of a batch took so long.

        Args:
            batch: Which; it had been chosen.
            seconds: How long.
            members: Tenant and class of each image of all batches, as they were in the pass.
        """
        self._times[batch] = self._times.get(batch, self._now) + seconds / _weights(members)[batch]


def _weights(members: Mapping[Batch, Iterable[tuple[str, Priority]]]) -> dict[Batch, float]:
    tenants: dict[Batch, dict[str, Priority]] = {}
    appearances: Counter[str] = Counter()
    for batch, images in members.items():
        highest: dict[str, Priority] = {}
        for tenant, priority in images:
            highest[tenant] = max(priority, highest.get(tenant, priority))
        tenants[batch] = highest
        appearances.update(highest.keys())
    return {
        batch: sum(CLASS_WEIGHTS[priority] / appearances[tenant] for tenant, priority in highest.items()) or 1.0
        for batch, highest in tenants.items()
    }
