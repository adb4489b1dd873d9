"""Who may upload at the moment: places that tenants share, and that a slow upload loses first."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from detex_core.errors import AbortedError, ResourceExhaustedError

_RETRY_SECONDS = 5.0
_GRACE_SECONDS = 5.0
"""Before which no upload counts as slow."""


@dataclass(eq=False)
class UploadPlace:
    """The place of one upload.

    Attributes:
        tenant: Whose it is.
        start_time: When it was given (of `time.monotonic`).
        received_bytes: What has come.
        is_receiving: Whether its caller is the one who is waited for; what has been received keeps its place.
        task: That receives it.
        is_lost: Whether it was given to somebody else.
    """

    tenant: str
    task: asyncio.Task[object] | None
    start_time: float = field(default_factory=time.monotonic)
    received_bytes: int = 0
    is_receiving: bool = True
    is_lost: bool = False

    @property
    def age_seconds(self) -> float:
        """Time since it was given."""
        return time.monotonic() - self.start_time

    @property
    def bytes_per_second(self) -> float:
        """Mean speed so far."""
        return self.received_bytes / max(self.age_seconds, 1e-3)


class UploadPlaces:
    """Places of uploads; for use within one event loop."""

    def __init__(self, places: int, *, of_tenant: int, slow_bytes_per_second: float) -> None:
        """All are free.

        Args:
            places: Uploads at a time.
            of_tenant: Of one tenant.
            slow_bytes_per_second: Where all places are taken, an upload slower than this makes room for a tenant that
                has none.
        """
        self._count = places
        self._of_tenant = of_tenant
        self._slow_bytes_per_second = slow_bytes_per_second
        self._taken: dict[UploadPlace, None] = {}

    @asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator[UploadPlace]:
        """Hold a place for the time of a block.

        Raises:
            ResourceExhaustedError: The tenant has its share (reason `TOO_MANY_UPLOADS_OF_TENANT`), or all places are
                taken (reason `TOO_MANY_UPLOADS`).
            AbortedError: The place was given to somebody else, for the upload was slow (reason `UPLOAD_SLOW`).
        """
        own = sum(taken.tenant == tenant for taken in self._taken)
        if own >= self._of_tenant:
            raise ResourceExhaustedError(
                f"This tenant has {own} uploads running, the maximum; try again when one is done.",
                reason="TOO_MANY_UPLOADS_OF_TENANT",
                retry_delay_seconds=_RETRY_SECONDS,
            )
        if len(self._taken) >= self._count and not (own == 0 and self._take_away()):
            raise ResourceExhaustedError(
                "Too many concurrent uploads; try again in a moment.",
                reason="TOO_MANY_UPLOADS",
                retry_delay_seconds=_RETRY_SECONDS,
            )
        place = UploadPlace(tenant, asyncio.current_task())
        self._taken[place] = None
        try:
            yield place
        except asyncio.CancelledError:
            if not place.is_lost or place.task is None:
                raise
            place.task.uncancel()
            raise AbortedError(
                f"This upload was slow ({place.bytes_per_second:,.0f} bytes per second) while others waited; send it "
                "again.",
                reason="UPLOAD_SLOW",
                retry_delay_seconds=_RETRY_SECONDS,
            ) from None
        finally:
            self._taken.pop(place, None)

    def _take_away(self) -> bool:
        """Free the place of the slowest of the slow uploads, of the tenant with the most; whether there was one."""
        counts = {taken.tenant: 0 for taken in self._taken}
        for taken in self._taken:
            counts[taken.tenant] += 1
        slow = [
            taken
            for taken in self._taken
            if taken.is_receiving
            and taken.task is not None
            and taken.age_seconds >= _GRACE_SECONDS
            and taken.bytes_per_second < self._slow_bytes_per_second
        ]
        if not slow:
            return False
        lost = min(slow, key=lambda taken: (-counts[taken.tenant], taken.bytes_per_second))
        lost.is_lost, lost.is_receiving = True, False
        del self._taken[lost]
        if lost.task is not None:
            lost.task.cancel()
        return True
