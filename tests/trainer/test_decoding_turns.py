"""Calls that decode pictures take turns, also where their callers do not wait for them."""

import asyncio
import threading

import pytest

from detex_core.errors import ResourceExhaustedError
from detex_core.tenancy import set_tenant
from detex_trainer.api.decoding_turns import THREADS_PER_TENANT, WAITING_PER_TENANT, DecodingTurns


class Gauge:
    """Counts who is inside at a time; lets nobody out before it is opened."""

    def __init__(self) -> None:
        self.most = self.inside = self.entered = 0
        self._lock = threading.Lock()
        self.gate, self.begun = threading.Event(), threading.Event()

    def enter(self) -> int:
        with self._lock:
            self.inside += 1
            self.entered += 1
            self.most = max(self.most, self.inside)
        self.begun.set()
        assert self.gate.wait(30)
        with self._lock:
            self.inside -= 1
        return 7


def test_a_tenant_has_its_share_and_all_get_their_turn() -> None:
    async def scenario() -> None:
        turns, gauge, other = DecodingTurns(), Gauge(), Gauge()
        calls = [asyncio.create_task(turns.run(gauge.enter)) for _ in range(WAITING_PER_TENANT)]
        assert await asyncio.to_thread(gauge.begun.wait, 30)
        with pytest.raises(ResourceExhaustedError) as raised:
            await turns.run(gauge.enter)
        assert raised.value.reason == "TOO_MANY_CALLS"
        other.gate.set()

        async def of_another() -> int:
            set_tenant("another")
            return await turns.run(other.enter)

        assert await asyncio.create_task(of_another()) == 7
        gauge.gate.set()
        assert await asyncio.gather(*calls) == [7] * WAITING_PER_TENANT
        assert gauge.most <= THREADS_PER_TENANT
        assert await turns.run(gauge.enter) == 7

    asyncio.run(scenario())


def test_a_call_that_is_cancelled_keeps_its_turn_until_its_thread_has_ended() -> None:
    async def scenario() -> None:
        turns, gauge = DecodingTurns(), Gauge()
        first = asyncio.create_task(turns.run(gauge.enter))
        assert await asyncio.to_thread(gauge.begun.wait, 30)
        others = [asyncio.create_task(turns.run(gauge.enter)) for _ in range(THREADS_PER_TENANT)]
        first.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert gauge.entered <= THREADS_PER_TENANT
        gauge.gate.set()
        assert await asyncio.gather(*others) == [7] * THREADS_PER_TENANT
        await asyncio.wait([first])
        assert first.cancelled()
        assert gauge.most <= THREADS_PER_TENANT

    asyncio.run(scenario())
