"""News of one piece of work for any number of pages, those that come late included."""

import asyncio
from collections.abc import AsyncIterator
from threading import Lock
from typing import Any

News = dict[str, Any]

_END = None


class Broadcast:
    """News that a thread publishes and pages listen to. Who comes late hears the latest of each kind first.

    Args:
        most_kept: Kinds of news that are kept for late pages; the oldest go first.
    """

    def __init__(self, most_kept: int = 64) -> None:
        self._most_kept = most_kept
        self._lock = Lock()
        self._latest: dict[str, News] = {}
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[News | None]]] = set()
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """Whether no more news will come."""
        return self._has_ended

    def latest(self, kind: str) -> News | None:
        """The latest news of a kind."""
        with self._lock:
            return self._latest.get(kind)

    def publish(self, kind: str, news: News) -> None:
        """Tell all who listen; of one kind only the latest is kept."""
        with self._lock:
            self._latest.pop(kind, None)
            self._latest[kind] = news
            while len(self._latest) > self._most_kept:
                self._latest.pop(next(iter(self._latest)))
            listeners = list(self._listeners)
        for loop, queue in listeners:
            _put(loop, queue, news)

    def end(self) -> None:
        """No more news will come."""
        with self._lock:
            self._has_ended = True
            listeners = list(self._listeners)
        for loop, queue in listeners:
            _put(loop, queue, _END)

    async def listen(self) -> AsyncIterator[News]:
        """What is known, then what comes, until the end."""
        queue: asyncio.Queue[News | None] = asyncio.Queue()
        listener = (asyncio.get_running_loop(), queue)
        with self._lock:
            known = list(self._latest.values())
            ended = self._has_ended
            if not ended:
                self._listeners.add(listener)
        try:
            for news in known:
                yield news
            while not ended:
                news_or_end = await queue.get()
                if news_or_end is _END:
                    return
                yield news_or_end
        finally:
            with self._lock:
                self._listeners.discard(listener)


def _put(loop: asyncio.AbstractEventLoop, queue: "asyncio.Queue[News | None]", news: News | None) -> None:
    try:
        loop.call_soon_threadsafe(queue.put_nowait, news)
    except RuntimeError:  # the loop has ended, and the page with it
        return
