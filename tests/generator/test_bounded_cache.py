"""The cache that is bounded in bytes, against its definition and under threads."""

import gc
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_generator.bounded_cache import BoundedCache


class Value:
    def __init__(self, size: int) -> None:
        self.size = size


class Counts:
    def __init__(self) -> None:
        self.hits = self.misses = self.evictions = self.size_bytes = self.entries = 0

    def hit(self) -> None:
        self.hits += 1

    def miss(self) -> None:
        self.misses += 1

    def evicted(self) -> None:
        self.evictions += 1

    def holds(self, size_bytes: int, entries: int) -> None:
        self.size_bytes, self.entries = size_bytes, entries


def cache_of(capacity_bytes: int) -> tuple[BoundedCache[int, Value], Counts]:
    counts = Counts()
    return BoundedCache(capacity_bytes, lambda value: value.size, counts), counts


@settings(deadline=None)
@given(st.integers(0, 20), st.lists(st.integers(0, 7), max_size=40))
def test_the_least_recently_used_go_first_and_the_bound_holds(capacity: int, keys: list[int]) -> None:
    cache, counts = cache_of(capacity)
    kept: OrderedDict[int, int] = OrderedDict()
    loads = evictions = 0
    for key in keys:
        size = key + 1

        def load(size: int = size) -> Value:
            nonlocal loads
            loads += 1
            return Value(size)

        before = loads
        assert cache.get(key, load).size == size
        assert (loads > before) == (key not in kept)
        if key in kept:
            kept.move_to_end(key)
        elif size <= capacity:
            while sum(kept.values()) + size > capacity:
                kept.popitem(last=False)
                evictions += 1
            kept[key] = size
        assert [(entry.key, entry.size_bytes) for entry in cache.entries()] == list(reversed(kept.items()))
        assert sum(entry.size_bytes for entry in cache.entries()) <= capacity
    assert (counts.misses, counts.hits, counts.evictions) == (loads, len(keys) - loads, evictions)
    if kept:
        assert (counts.size_bytes, counts.entries) == (sum(kept.values()), len(kept))


def test_one_load_serves_all_who_wait() -> None:
    cache, counts = cache_of(100)
    callers = 16
    begun, may_end = threading.Event(), threading.Event()
    loads = []

    def load() -> Value:
        loads.append(1)
        begun.set()
        assert may_end.wait(30)
        return Value(1)

    with ThreadPoolExecutor(callers) as pool:
        found = [pool.submit(cache.get, 1, load) for _ in range(callers)]
        assert begun.wait(30)
        while counts.hits < callers - 1:
            threading.Event().wait(0.001)
        may_end.set()
        values = {future.result(30) for future in found}
    assert len(loads) == len(values) == 1


def test_other_keys_do_not_wait_for_a_load() -> None:
    cache, _ = cache_of(100)
    begun, may_end = threading.Event(), threading.Event()

    def load() -> Value:
        begun.set()
        assert may_end.wait(30)
        return Value(1)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.get, 1, load)
        assert begun.wait(30)
        assert cache.get(2, lambda: Value(2)).size == 2
        assert not slow.done()
        may_end.set()


def test_a_failed_load_is_told_to_all_and_forgotten() -> None:
    cache, _ = cache_of(100)

    def fail() -> Value:
        raise OSError("the test's disk")

    for _ in range(2):
        with pytest.raises(OSError, match="the test's disk"):
            cache.get(1, fail)
    assert cache.get(1, lambda: Value(1)).size == 1


def test_what_somebody_holds_is_not_loaded_again() -> None:
    cache, _ = cache_of(0)
    held = cache.get(1, lambda: Value(5))
    assert cache.entries() == []
    assert cache.get(1, lambda: Value(6)) is held
    del held
    gc.collect()
    assert cache.get(1, lambda: Value(6)).size == 6
