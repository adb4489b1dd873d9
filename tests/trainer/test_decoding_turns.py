"""Calls that decode pictures take turns, also where their callers do not wait for them."""

import asyncio
import threading

from detex_trainer.service.decoding_turns import DecodingTurns


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


def test_one_decodes_at_a_time_and_all_get_their_turn() -> None:
    async def scenario() -> None:
        turns, gauge = DecodingTurns(), Gauge()
        calls = [asyncio.create_task(turns.run(gauge.enter)) for _ in range(8)]
        assert await asyncio.to_thread(gauge.begun.wait, 30)
        gauge.gate.set()
        assert await asyncio.gather(*calls) == [7] * 8
        assert gauge.most == 1

    asyncio.run(scenario())


def test_a_call_that_is_cancelled_keeps_its_turn_until_its_thread_has_ended() -> None:
    async def scenario() -> None:
        turns, gauge = DecodingTurns(), Gauge()
        first = asyncio.create_task(turns.run(gauge.enter))
        assert await asyncio.to_thread(gauge.begun.wait, 30)
        first.cancel()
        second = asyncio.create_task(turns.run(gauge.enter))
        for _ in range(20):
            await asyncio.sleep(0)
        assert gauge.entered == 1
        gauge.gate.set()
        assert await second == 7
        assert first.cancelled()
        assert gauge.most == 1

    asyncio.run(scenario())
