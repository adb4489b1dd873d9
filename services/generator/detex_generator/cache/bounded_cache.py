"""A cache bounded in bytes: what is used seldom and long ago goes first, one load serves many waiters."""

import heapq
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class CacheObserver(Protocol):
    """Hears what a cache does; called with the cache's lock held, so it must be quick and must not call back."""

    def hit(self) -> None:
        """A value was available, or another caller was loading it already."""

    def miss(self) -> None:
        """A value has to be loaded."""

    def evicted(self) -> None:
        """A value made room for others."""

    def holds(self, size_bytes: int, entries: int) -> None:
        """The cache now keeps this much."""


@dataclass(frozen=True)
class Entry(Generic[Key]):
    """What the cache keeps under a key.

    Attributes:
        key: Its key.
        size_bytes: Its size.
        idle_seconds: Time since its last use.
        pinned: Whether it stays whatever others need.
    """

    key: Key
    size_bytes: int
    idle_seconds: float
    pinned: bool


@dataclass
class _Kept(Generic[Value]):
    value: Value
    size_bytes: int
    last_used: float
    uses: int
    worth: float
    order: int
    pinned: bool = False


class BoundedCache(Generic[Key, Value]):
    """Values by key, at most so many bytes of them; safe to use from several threads.

    Eviction is by least frequent use with dynamic aging (LFU-DA; Arlitt, Cherkasova, Dilley, Friedrich and Jin 2000,
    "Evaluating content management techniques for web proxy caches"): a value is worth the number of its uses plus the
    worth of what was last evicted when it was used, and the least worth goes first, of equals the one used least
    recently. So what is asked for often stays while much that is asked for once passes by, and what was popular once
    grows old. Sizes do not count: to load a value again costs about as much as it is large.

    A value that was evicted, or is larger than the whole cache, is found again as long as somebody else still holds it:
    memory that is in use anyway is never loaded twice. Values must admit weak references.
    """

    def __init__(self, capacity_bytes: int, size_of: Callable[[Value], int], observer: CacheObserver) -> None:
        """Begin empty.

        Args:
            capacity_bytes: Most bytes to keep; 0 keeps nothing.
            size_of: Bytes of a value.
            observer: Receives hits, misses and evictions.
        """
        self._capacity_bytes = capacity_bytes
        self._size_of = size_of
        self._observer = observer
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept[Value]] = OrderedDict()  # least recently used first
        self._kept_bytes = 0
        self._pinned_bytes = 0
        self._age = 0.0  # worth of what was last evicted
        # One entry for each kept key: (worth, order, key) as of some use of it. Brought up to date when it comes up.
        self._by_worth: list[tuple[float, int, Key]] = []
        self._order = count()
        self._elsewhere: weakref.WeakValueDictionary[Key, Value] = weakref.WeakValueDictionary()
        self._loading: dict[Key, Future[Value]] = {}

    def get(self, key: Key, load: Callable[[], Value]) -> Value:
        """The value of a key; loaded where it is not available.

        Of several callers that miss at the same time one loads and all get what it loaded, or its exception. A failed
        load leaves nothing behind: the next caller tries afresh.
        """
        with self._lock:
            value = self._find(key)
            if value is not None:
                self._observer.hit()
                return value
            loading = self._loading.get(key)
            if loading is not None:
                self._observer.hit()
            else:
                self._observer.miss()
                own: Future[Value] = Future()
                self._loading[key] = own
        if loading is not None:
            return loading.result()
        try:
            value = load()
            size_bytes = self._size_of(value)
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            own.set_exception(error)
            raise
        with self._lock:
            del self._loading[key]
            self._keep(key, value, size_bytes)
        own.set_result(value)
        return value

    def __contains__(self, key: Key) -> bool:
        """Whether the value is available now; counts as no use."""
        with self._lock:
            return key in self._kept or key in self._elsewhere

    def touch(self, key: Key) -> None:
        """Count a use of a value that was served from elsewhere; does nothing where it is not kept."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._use(key, kept)

    def pin(self, key: Key, pinned: bool) -> bool:
        """Keep a value whatever others need, or no longer.

        Pinned values take at most half of the cache, so that the rest of it still serves.

        Returns:
            Whether it is so now: false where the value is not kept, or would make pins take more than half.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return not pinned
            if kept.pinned != pinned:
                change = kept.size_bytes if pinned else -kept.size_bytes
                if self._pinned_bytes + change > self._capacity_bytes // 2:
                    return False
                kept.pinned = pinned
                self._pinned_bytes += change
            return True

    def forget(self, gone: Callable[[Key], bool]) -> list[Key]:
        """Forget the values whose keys `gone` says, pinned or not; gives the keys of those that were kept."""
        with self._lock:
            keys = [key for key in self._kept if gone(key)]
            for key in keys:
                kept = self._kept.pop(key)
                self._kept_bytes -= kept.size_bytes
                self._pinned_bytes -= kept.size_bytes if kept.pinned else 0
            if keys:
                self._by_worth = [entry for entry in self._by_worth if entry[2] in self._kept]
                heapq.heapify(self._by_worth)
                self._observer.holds(self._kept_bytes, len(self._kept))
            for key in [key for key in self._elsewhere if gone(key)]:
                self._elsewhere.pop(key, None)
            return keys

    def clear(self) -> None:
        """Forget all that is not pinned."""
        with self._lock:
            self._make_room(self._capacity_bytes - self._pinned_bytes)
            self._observer.holds(self._kept_bytes, len(self._kept))

    @property
    def pinned_bytes(self) -> int:
        """Bytes of pinned values."""
        return self._pinned_bytes

    def entries(self) -> list[Entry[Key]]:
        """What is kept, the one used last first."""
        now = time.monotonic()
        with self._lock:
            return [
                Entry(key, kept.size_bytes, max(0.0, now - kept.last_used), kept.pinned)
                for key, kept in reversed(self._kept.items())
            ]

    def _find(self, key: Key) -> Value | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._use(key, kept)
            return kept.value
        value = self._elsewhere.get(key)
        if value is not None:
            self._keep(key, value, self._size_of(value))
        return value

    def _use(self, key: Key, kept: _Kept[Value]) -> None:
        kept.last_used = time.monotonic()
        kept.uses += 1
        kept.worth = self._age + kept.uses
        kept.order = next(self._order)
        self._kept.move_to_end(key)

    def _keep(self, key: Key, value: Value, size_bytes: int) -> None:
        self._elsewhere[key] = value
        if size_bytes > self._capacity_bytes - self._pinned_bytes:
            return
        self._make_room(size_bytes)
        kept = _Kept(value, size_bytes, time.monotonic(), 1, self._age + 1, next(self._order))
        self._kept[key] = kept
        heapq.heappush(self._by_worth, (kept.worth, kept.order, key))
        self._kept_bytes += size_bytes
        self._observer.holds(self._kept_bytes, len(self._kept))

    def _make_room(self, size_bytes: int) -> None:
        """Evict until so many bytes are free; they are at most what is not pinned."""
        passed_over = []
        while self._kept_bytes + size_bytes > self._capacity_bytes:
            worth, order, key = heapq.heappop(self._by_worth)
            kept = self._kept[key]
            if kept.pinned:
                passed_over.append((worth, order, key))
            elif kept.order > order:  # used since then
                heapq.heappush(self._by_worth, (kept.worth, kept.order, key))
            else:
                del self._kept[key]
                self._kept_bytes -= kept.size_bytes
                self._age = kept.worth
                self._observer.evicted()
        for entry in passed_over:
            heapq.heappush(self._by_worth, entry)
