"""Memory that callers share: never exceeded, given back, fair between tenants, and nobody passed over for ever."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_core.errors import ResourceExhaustedError
from detex_core.memory_budget import MemoryBudget, memory_bytes, usual_budget_bytes


def budget(capacity: int = 100, wait: float = 60.0) -> MemoryBudget:
    return MemoryBudget(capacity, what="the test", reason="TEST_MEMORY", longest_wait_seconds=wait)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 150)), min_size=1, max_size=30), st.integers(1, 4))
def test_it_is_never_exceeded_and_all_are_served(wishes: list[tuple[str, int]], threads: int) -> None:
    shared, lock, held, served = budget(), threading.Lock(), Counter[str](), []

    def serve(wish: tuple[str, int]) -> None:
        tenant, size = wish
        with shared.hold(size, tenant):
            with lock:
                held[tenant] += min(size, 100)
                assert sum(held.values()) <= 100
                served.append(wish)
            with lock:
                held[tenant] -= min(size, 100)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(serve, wishes))
    assert len(served) == len(wishes)
    assert shared.held_bytes == 0


def test_the_tenant_that_holds_least_is_next() -> None:
    shared = budget()
    order: list[str] = []
    arrived = [threading.Event() for _ in range(4)]

    def wait(place: int, tenant: str) -> None:
        arrived[place].set()
        with shared.hold(60, tenant):
            order.append(tenant)

    with ExitStack() as greedy:
        greedy.enter_context(shared.hold(40, "greedy"))
        block = ExitStack()
        block.enter_context(shared.hold(60, "other"))
        threads = []
        for place, tenant in enumerate(("greedy", "greedy", "modest")):
            thread = threading.Thread(target=wait, args=(place, tenant))
            thread.start()
            threads.append(thread)
            while len(shared._waiting) <= place:
                arrived[3].wait(0.001)
        block.close()
        for thread in threads:
            thread.join(60)
    assert order == ["modest", "greedy", "greedy"]


def test_small_wishes_do_not_wait_for_large_ones() -> None:
    shared = MemoryBudget(1_000, what="the test", reason="TEST_MEMORY", longest_wait_seconds=0.01, small_share=0.25)
    with shared.hold(10**9, "large"):  # all that large ones may hold
        assert shared.held_bytes == 750
        with pytest.raises(ResourceExhaustedError), shared.hold(63, "other"):
            pass
        with ExitStack() as small:
            for tenant in ("large", "other", "other", "another"):
                small.enter_context(shared.hold(62, tenant))
            assert shared.held_bytes == 750 + 4 * 62
            with pytest.raises(ResourceExhaustedError), shared.hold(3, "other"):
                pass
    assert shared.held_bytes == 0


def test_who_waits_too_long_is_told_when_to_return() -> None:
    shared = budget(wait=0.01)
    with shared.hold(100, "a"):
        with pytest.raises(ResourceExhaustedError, match=r"the test \(100 of 100 bytes") as raised, shared.hold(1, "b"):
            pass
        assert (raised.value.reason, raised.value.code) == ("TEST_MEMORY", grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert raised.value.retry_delay_seconds
    with shared.hold(100, "b"):
        assert shared.held_bytes == 100
    assert shared.held_bytes == 0


def test_without_waiting_a_tenant_has_its_share() -> None:
    shared = budget()
    with shared.hold_at_once(90, "a", share=0.5):  # one wish is always granted
        with pytest.raises(ResourceExhaustedError), shared.hold_at_once(1, "a", share=0.5):
            pass
        with pytest.raises(ResourceExhaustedError), shared.hold_at_once(20, "b", share=0.5):
            pass
        with shared.hold_at_once(10, "b", share=0.5):
            assert shared.held_bytes == 100
    with pytest.raises(RuntimeError, match="the block"), shared.hold_at_once(10**9, "a"):
        raise RuntimeError("the block")
    assert shared.held_bytes == 0


def test_the_usual_budget_fits_into_the_memory() -> None:
    assert 64 * 1024**2 <= usual_budget_bytes() <= 2 * 1024**3
    assert memory_bytes() > 0
