"""A cache bounded in bytes: least recently used goes first, one load serves many waiters."""

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class CacheObserver(Protocol):
    """Hears what a cache does; called with the cache's lock held, so it must be quick and must not call back."""

    def hit(self) -> None:
        """A value was at hand, or another caller was loading it already."""

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
    """

    key: Key
    size_bytes: int
    idle_seconds: float


@dataclass
class _Kept(Generic[Value]):
    value: Value
    size_bytes: int
    last_used: float


class BoundedCache(Generic[Key, Value]):
    """Values by key, at most so many bytes of them; safe to use from several threads.

    A value that was evicted, or is larger than the whole cache, is found again as long as somebody else still holds it:
    memory that is in use anyway is never loaded twice. Values must admit weak references.
    """

    def __init__(self, capacity_bytes: int, size_of: Callable[[Value], int], observer: CacheObserver) -> None:
        """Begin empty.

        Args:
            capacity_bytes: Most bytes to keep; 0 keeps nothing.
            size_of: Bytes of a value.
            observer: Hears of hits, misses and evictions.
        """
        self._capacity_bytes = capacity_bytes
        self._size_of = size_of
        self._observer = observer
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept[Value]] = OrderedDict()  # least recently used first
        self._kept_bytes = 0
        self._elsewhere: weakref.WeakValueDictionary[Key, Value] = weakref.WeakValueDictionary()
        self._loading: dict[Key, Future[Value]] = {}

    def get(self, key: Key, load: Callable[[], Value]) -> Value:
        """The value of a key; loaded where it is not at hand.

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

    def entries(self) -> list[Entry[Key]]:
        """What is kept, the one used last first."""
        now = time.monotonic()
        with self._lock:
            return [
                Entry(key, kept.size_bytes, max(0.0, now - kept.last_used))
                for key, kept in reversed(self._kept.items())
            ]

    def _find(self, key: Key) -> Value | None:
        kept = self._kept.get(key)
        if kept is not None:
            kept.last_used = time.monotonic()
            self._kept.move_to_end(key)
            return kept.value
        value = self._elsewhere.get(key)
        if value is not None:
            self._keep(key, value, self._size_of(value))
        return value

    def _keep(self, key: Key, value: Value, size_bytes: int) -> None:
        self._elsewhere[key] = value
        if size_bytes > self._capacity_bytes:
            return
        while self._kept_bytes + size_bytes > self._capacity_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.size_bytes
            self._observer.evicted()
        self._kept[key] = _Kept(value, size_bytes, time.monotonic())
        self._kept_bytes += size_bytes
        self._observer.holds(self._kept_bytes, len(self._kept))
