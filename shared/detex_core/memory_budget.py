"""Memory that many callers share: each says how much it needs before it takes it, and waits where there is none."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from detex_core.errors import ResourceExhaustedError
from detex_core.settings import ServiceSettings

RETRY_SECONDS: Final = 1.0
LARGE_MESSAGE_BYTES: Final = 1024**2
MESSAGE_SHARE: Final = 0.5
"""Of the memory for large messages, for one tenant."""
SMALL_SHARE: Final = 0.25
"""Of the memory for pictures, for small ones: they do not wait for a large one, whoever decodes it."""
_SMALL_WISH_SHARE: Final = 0.25
_LOOK_AGAIN_SECONDS: Final = 0.02
_LIMIT_FILES: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class MemoryBudget:
    """Bytes that are shared fairly between tenants; safe to use from several threads.

    Who waits is served in an order: the tenant that holds least first, and of one tenant who came first. Nobody is
    passed over because a smaller wish would fit, so large ones are served too. A wish larger than the whole is taken
    for the whole: then nothing else is held beside it.

    A part may be kept for small wishes, of at most a quarter of that part. They take from it alone and by the same
    rules, so that they do not wait for large ones.
    """

    def __init__(
        self,
        capacity_bytes: int,
        *,
        what: str,
        reason: str,
        longest_wait_seconds: float,
        small_share: float = 0.0,
    ) -> None:
        """Nothing is held yet.

        Args:
            capacity_bytes: All that may be held at once, 1 or more.
            what: What it is for, in errors: "pictures that are being decoded".
            reason: Stable reason of errors.
            longest_wait_seconds: After which a wish is refused.
            small_share: Part of the whole that is kept for small wishes, 0 to below 1; 0 for none.
        """
        small_bytes = int(capacity_bytes * small_share)
        self._small: MemoryBudget | None = None
        if small_bytes:
            self._small = MemoryBudget(small_bytes, what=what, reason=reason, longest_wait_seconds=longest_wait_seconds)
        self._small_wish_bytes = int(small_bytes * _SMALL_WISH_SHARE)
        self._capacity = max(1, capacity_bytes - small_bytes)
        self._what, self._reason = what, reason
        self._longest_wait_seconds = longest_wait_seconds
        self._changed = threading.Condition()
        self._held: Counter[str] = Counter()
        self._held_bytes = 0
        self._waiting: dict[object, tuple[str, int]] = {}  # by a ticket, in the order in which they came

    @property
    def held_bytes(self) -> int:
        """Bytes that are held now."""
        return self._held_bytes + (self._small.held_bytes if self._small else 0)

    @contextmanager
    def hold(self, size_bytes: int, tenant: str) -> Iterator[None]:
        """Hold bytes for the time of a block; waits for them.

        Raises:
            ResourceExhaustedError: They were not free within the longest wait; names a delay after which to try again.
        """
        if self._small is not None and size_bytes <= self._small_wish_bytes:
            with self._small.hold(size_bytes, tenant):
                yield
            return
        size = min(max(0, size_bytes), self._capacity)
        self._take(size, tenant)
        try:
            yield
        finally:
            self._give_back(size, tenant)

    @contextmanager
    def hold_at_once(self, size_bytes: int, tenant: str, *, share: float = 1.0) -> Iterator[None]:
        """Hold bytes for the time of a block, without waiting; for event loops.

        Args:
            size_bytes: How many.
            tenant: For whom.
            share: Part of the whole that one tenant may hold in this way, above 0 to 1; one wish is always granted.

        Raises:
            ResourceExhaustedError: They are not free now, or the tenant holds its share.
        """
        size = min(max(0, size_bytes), self._capacity)
        with self._changed:
            own = self._held[tenant]
            exceeds_share = own > 0 and own + size > share * self._capacity
            if exceeds_share or self._waiting or self._held_bytes + size > self._capacity:
                raise self._refusal()
            self._grant(size, tenant)
        try:
            yield
        finally:
            self._give_back(size, tenant)

    @contextmanager
    def hold_what_is_taken(self, size_bytes: int, tenant: str) -> Iterator[None]:
        """Hold bytes for the time of a block that are in memory already, also where that is more than there is.

        For who continues holding a part of what it has held: if it waited for that, all could wait for each other.
        """
        size = min(max(0, size_bytes), self._capacity)
        with self._changed:
            self._grant(size, tenant)
        try:
            yield
        finally:
            self._give_back(size, tenant)

    @asynccontextmanager
    async def hold_when_free(self, size_bytes: int, tenant: str, *, share: float = 1.0) -> AsyncIterator[None]:
        """Hold bytes for the time of a block, as `hold_at_once` but for that it waits, forever, without a thread."""
        while True:
            with ExitStack() as held:
                try:
                    held.enter_context(self.hold_at_once(size_bytes, tenant, share=share))
                except ResourceExhaustedError:
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
                    continue
                yield
                return

    def _take(self, size: int, tenant: str) -> None:
        ticket, end = object(), time.monotonic() + self._longest_wait_seconds
        with self._changed:
            self._waiting[ticket] = (tenant, size)
            try:
                while not (self._next() is ticket and self._held_bytes + size <= self._capacity):
                    left = end - time.monotonic()
                    if left <= 0:
                        raise self._refusal()
                    self._changed.wait(left)
                self._grant(size, tenant)
            finally:
                del self._waiting[ticket]
                self._changed.notify_all()  # another one is the next now

    def _next(self) -> object:
        return min(self._waiting, key=lambda ticket: self._held[self._waiting[ticket][0]])

    def _grant(self, size: int, tenant: str) -> None:
        self._held[tenant] += size
        self._held_bytes += size

    def _give_back(self, size: int, tenant: str) -> None:
        with self._changed:
            self._held_bytes -= size
            self._held[tenant] -= size
            if not self._held[tenant]:
                del self._held[tenant]
            self._changed.notify_all()

    def _refusal(self) -> ResourceExhaustedError:
        return ResourceExhaustedError(
            f"No memory is available for {self._what} ({self._held_bytes:,} of {self._capacity:,} bytes are in use); "
            "try again in a moment.",
            reason=self._reason,
            retry_delay_seconds=RETRY_SECONDS,
        )


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its container's where that has less."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMIT_FILES:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            most = min(most, int(text))
    return most


def usual_budget_bytes() -> int:
    """For a kind of use of which several stand beside each other: an eighth of the memory, 64 MiB to 2 GiB."""
    return min(max(memory_bytes() // 8, 64 * 1024**2), 2 * 1024**3)


def picture_budget(settings: ServiceSettings) -> MemoryBudget:
    """The budget of a service for decoding pictures."""
    return MemoryBudget(
        settings.picture_memory_bytes or usual_budget_bytes(),
        what="pictures that are being decoded",
        reason="PICTURE_MEMORY",
        longest_wait_seconds=settings.picture_wait_seconds,
        small_share=SMALL_SHARE,
    )


def message_budget(settings: ServiceSettings) -> MemoryBudget:
    """The budget of a service for large messages."""
    return MemoryBudget(
        settings.message_memory_bytes or usual_budget_bytes(),
        what="large messages",
        reason="MESSAGE_MEMORY",
        longest_wait_seconds=0.0,
    )
