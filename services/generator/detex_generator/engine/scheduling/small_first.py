"""Threads that take small pieces of work first, without letting large ones wait forever."""

import atexit
import heapq
import logging
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

_logger = logging.getLogger(__name__)


class SmallFirst:
    """Runs calls in threads. A call may be overtaken by smaller ones that come within its patience.

    What comes is due at the time at which it came and its patience later, and what is due first is run first. So a
    large call waits longer by its patience at most, and small ones hardly wait behind many large ones.
    """

    def __init__(self, threads: int, name: str, initializer: Callable[..., None], initargs: tuple[Any, ...]) -> None:
        """Begin.

        Args:
            threads: How many calls run at a time.
            name: Of the threads.
            initializer: Called in each thread first.
            initargs: With these.
        """
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(initializer, initargs), name=f"{name}_{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, patience_seconds: float, call: Callable[[], None]) -> None:
        """Run a call when its turn has come; what it raises goes to the log. Raises RuntimeError after the end."""
        with self._changed:
            if self._closed:
                raise RuntimeError("closed")
            heapq.heappush(self._due, (time.monotonic() + patience_seconds, next(self._numbers), call))
            self._changed.notify()

    def close(self) -> None:
        """Drop what has not begun; what runs ends by itself, before the process does."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify_all()
        for thread in self._threads:
            # An interpreter that ends stops threads amid torch's own code, which aborts the process.
            atexit.register(thread.join)

    def _work(self, initializer: Callable[..., None], initargs: tuple[Any, ...]) -> None:
        initializer(*initargs)
        while True:
            with self._changed:
                while not self._due and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                _, _, call = heapq.heappop(self._due)
            try:
                call()
            except BaseException:
                _logger.exception("A call in the background failed")
            del call
