"""Places of uploads: shares of tenants, and slow ones that make room."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from detex_core.errors import AbortedError, ResourceExhaustedError
from detex_trainer.intake import upload_places
from detex_trainer.intake.upload_places import UploadPlace, UploadPlaces


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_places, "_GRACE_SECONDS", 0.0)


class Uploads:
    """Uploads that go on until they are told to end."""

    def __init__(self, places: UploadPlaces) -> None:
        self.places = places
        self.end = asyncio.Event()
        self.begun: dict[str, UploadPlace] = {}
        self.tasks: list[asyncio.Task[str]] = []

    async def start(self, tenant: str, received_bytes: int = 0, *, is_receiving: bool = True) -> asyncio.Task[str]:
        name = f"{tenant} {len(self.tasks)}"

        async def run() -> str:
            async with self.places.place(tenant) as place:
                place.received_bytes, place.is_receiving = received_bytes, is_receiving
                self.begun[name] = place
                await self.end.wait()
            return "done"

        task = asyncio.create_task(run())
        self.tasks.append(task)
        while name not in self.begun and not task.done():
            await asyncio.sleep(0)
        return task


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


async def refused(task: asyncio.Task[str]) -> str:
    with pytest.raises((ResourceExhaustedError, AbortedError)) as raised:
        await task
    assert raised.value.retry_delay_seconds
    return raised.value.reason


def test_a_tenant_has_its_share() -> None:
    async def scenario() -> None:
        uploads = Uploads(UploadPlaces(8, of_tenant=4, slow_bytes_per_second=1e6))
        for _ in range(4):
            await uploads.start("greedy")
        assert await refused(await uploads.start("greedy")) == "TOO_MANY_UPLOADS_OF_TENANT"
        others = [await uploads.start("modest") for _ in range(4)]
        uploads.end.set()
        assert await asyncio.gather(*others) == ["done"] * 4
        assert await (await uploads.start("greedy")) == "done"

    run(scenario)


def test_the_slowest_makes_room_for_a_tenant_that_has_none() -> None:
    async def scenario() -> None:
        uploads = Uploads(UploadPlaces(4, of_tenant=3, slow_bytes_per_second=1e9))
        kept = [await uploads.start("greedy", 10**9, is_receiving=False), await uploads.start("greedy", 10**8)]
        slow = await uploads.start("greedy", 10)
        other = await uploads.start("other", 1)  # slower, and its tenant has fewer
        assert await refused(await uploads.start("other")) == "TOO_MANY_UPLOADS"
        newcomer = await uploads.start("modest")
        assert await refused(slow) == "UPLOAD_SLOW"
        assert slow.cancelling() == 0
        uploads.end.set()
        assert await asyncio.gather(*kept, other, newcomer) == ["done"] * 4

    run(scenario)


def test_fast_uploads_and_those_that_are_received_keep_their_places() -> None:
    async def scenario() -> None:
        uploads = Uploads(UploadPlaces(2, of_tenant=2, slow_bytes_per_second=1.0))
        kept = [await uploads.start("greedy", 10**9), await uploads.start("greedy", 0, is_receiving=False)]
        assert await refused(await uploads.start("modest")) == "TOO_MANY_UPLOADS"
        uploads.end.set()
        assert await asyncio.gather(*kept) == ["done"] * 2

    run(scenario)


def test_a_caller_who_goes_is_not_told_that_it_was_slow() -> None:
    async def scenario() -> None:
        uploads = Uploads(UploadPlaces(1, of_tenant=1, slow_bytes_per_second=1e9))
        task = await uploads.start("one")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        uploads.end.set()
        assert await (await uploads.start("two")) == "done"

    run(scenario)
