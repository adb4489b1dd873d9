"""Whether the object store is there, known without making anybody wait."""

import asyncio
import logging
import time
from collections.abc import Callable

from detex_core.errors import DetexError
from detex_core.object_store import ObjectStore

_LOOK_SECONDS = 5.0

_log = logging.getLogger(__name__)


class StoreWatch:
    """Looks at the object store now and then, in the background; for use within one event loop."""

    def __init__(self, store: ObjectStore, on_return: Callable[[], None]) -> None:
        """Nothing is known yet.

        Args:
            store: The store.
            on_return: Called when it is found to be there after it was not, or for the first time.
        """
        self._store = store
        self._on_return = on_return
        self._is_there: bool | None = None
        self._look: asyncio.Task[None] | None = None
        self._next_look = 0.0

    def is_there(self) -> bool:
        """Whether it was there when it was looked at last, some seconds ago at most; False before the first look."""
        if self._look is None and time.monotonic() >= self._next_look:
            self._look = asyncio.create_task(self._look_at_it(), name="look at the object store")
        return bool(self._is_there)

    async def _look_at_it(self) -> None:
        try:
            await asyncio.to_thread(self._store.check)
        except DetexError as error:
            if self._is_there is not False:
                _log.warning("no job begins until the object store is there: %s", error.message)
            self._is_there = False
        else:
            was_there, self._is_there = self._is_there, True
            if not was_there:
                self._on_return()
        finally:
            self._look, self._next_look = None, time.monotonic() + _LOOK_SECONDS
