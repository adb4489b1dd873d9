"""Whether the event loop turns: a service whose loop stands still answers nobody, whatever its other threads say."""

import asyncio
import time
from typing import Final

_BEAT_SECONDS: Final = 0.5


class Heartbeat:
    """Runs in an event loop and is asked from other threads."""

    def __init__(self, longest_pause_seconds: float) -> None:
        """Alive from now on.

        Args:
            longest_pause_seconds: Without a beat for so long, the loop does not count as alive.
        """
        self._longest_pause_seconds = max(longest_pause_seconds, 2 * _BEAT_SECONDS)
        self._last = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self._last < self._longest_pause_seconds

    async def run(self) -> None:
        """Beat, forever."""
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)
