"""The cache that is bounded in bytes, against its definition and under threads."""

import gc
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_generator.cache.bounded_cache import BoundedCache


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


@dataclass
class Model:
    """What eviction by least frequent use with dynamic aging keeps, by its definition."""

    capacity: int
    age: float = 0.0
    uses: dict[int, int] = field(default_factory=dict)
    worth: dict[int, float] = field(default_factory=dict)
    last_use: dict[int, int] = field(default_factory=dict)
    pinned: set[int] = field(default_factory=set)
    evictions: int = 0

    def size(self, keys: Iterable[int]) -> int:
        return sum(key + 1 for key in keys)

    def use(self, key: int, time: int) -> None:
        if key not in self.uses:
            if key + 1 > self.capacity - self.size(self.pinned):
                return
            while self.size(self.uses) + key + 1 > self.capacity:
                least = min(self.uses.keys() - self.pinned, key=lambda each: (self.worth[each], self.last_use[each]))
                self.age = self.worth[least]
                del self.uses[least]
                self.evictions += 1
            self.uses[key] = 0
        self.uses[key] += 1
        self.worth[key] = self.age + self.uses[key]
        self.last_use[key] = time

    def pin(self, key: int, pinned: bool) -> bool:
        if key not in self.uses:
            return not pinned
        after = self.pinned | {key} if pinned else self.pinned - {key}
        if self.size(after) > self.capacity // 2 and pinned:
            return key in self.pinned
        self.pinned = after
        return True


ACTIONS = st.lists(st.tuples(st.sampled_from(["use", "use", "use", "pin", "unpin"]), st.integers(0, 7)), max_size=60)


@settings(deadline=None)
@given(st.integers(0, 20), ACTIONS)
def test_the_least_worth_goes_first_and_the_bound_holds(capacity: int, actions: list[tuple[str, int]]) -> None:
    cache, counts = cache_of(capacity)
    model = Model(capacity)
    loads = used = 0
    for time, (action, key) in enumerate(actions):
        if action == "use":
            was_kept = key in model.uses
            value = Value(key + 1)
            found = cache.get(key, lambda value=value: value)
            assert (found is value) == (not was_kept)
            del value, found
            model.use(key, time)
            loads += not was_kept
            used += 1
        else:
            assert cache.pin(key, action == "pin") == model.pin(key, action == "pin")
        entries = cache.entries()
        assert [entry.key for entry in entries] == sorted(model.uses, key=lambda each: -model.last_use[each])
        assert {entry.key for entry in entries if entry.pinned} == model.pinned
        assert sum(entry.size_bytes for entry in entries) == model.size(model.uses) <= capacity
        assert cache.pinned_bytes == model.size(model.pinned) <= capacity // 2
    assert (counts.misses, counts.hits, counts.evictions) == (loads, used - loads, model.evictions)


def test_what_is_used_often_outlives_much_that_is_used_once() -> None:
    cache, _ = cache_of(10)
    for _ in range(3):
        cache.get(0, lambda: Value(1))
    for key in range(1, 25):
        cache.get(key, lambda: Value(1))
    assert 0 in cache  # a cache that goes by the last use alone would have dropped it
    for _ in range(3):
        for key in range(25, 60):
            cache.get(key, lambda: Value(1))
    assert 0 not in cache  # nor does it stay for ever


def test_clearing_leaves_what_is_pinned() -> None:
    cache, counts = cache_of(10)
    for key in range(4):
        cache.get(key, lambda: Value(1))
    assert cache.pin(2, True)
    cache.clear()
    assert [entry.key for entry in cache.entries()] == [2]
    assert (counts.size_bytes, counts.entries) == (1, 1)
    assert cache.get(3, lambda: Value(1)).size == 1


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
