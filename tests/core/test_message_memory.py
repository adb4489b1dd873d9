"""Memory for large messages comes back, however a call or a stream of requests ends."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import grpc.aio
import pytest

from detex_core.memory_budget import MemoryBudget
from detex_protos.v1 import generator_pb2, trainer_pb2
from tests.core.running_server import Running, running

LARGE = "x" * 2_000_000


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """What comes back must not wait for it."""
    gc.disable()
    yield
    gc.enable()


async def refused_upload(run: Running) -> None:
    """The handler ends within a large message; more of them would follow."""
    header = trainer_pb2.TrainingSetHeader(class_word="invalid", upload_id=LARGE)
    with pytest.raises(grpc.aio.AioRpcError):
        await run.trainer.UploadTrainingSet(iter([trainer_pb2.UploadTrainingSetRequest(header=header)] * 3), timeout=60)


async def refused_requests(run: Running) -> None:
    request = generator_pb2.GenerateRequest(prompt="invalid", negative_prompt=LARGE)
    many = generator_pb2.GenerateManyRequest(key="fail", request=request)
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in run.generator.GenerateMany(iter([many] * 3), timeout=60):
            pass


async def cancelled_requests(run: Running) -> None:
    """The caller leaves while the server has a large message of its stream, and answers to it."""
    request = generator_pb2.GenerateManyRequest(key="k", request=generator_pb2.GenerateRequest(prompt=LARGE))

    async def endless() -> AsyncIterator[generator_pb2.GenerateManyRequest]:
        while True:
            yield request

    call = run.generator.GenerateMany(endless(), timeout=60)
    await call.read()
    call.cancel()


async def cancelled_request(run: Running) -> None:
    call = run.generator.Generate(
        generator_pb2.GenerateRequest(prompt="wait", negative_prompt=LARGE, count=1), timeout=60
    )
    await call.read()
    call.cancel()


async def malformed(run: Running) -> None:
    async with grpc.aio.insecure_channel(run.server.address) as raw:
        with pytest.raises(grpc.aio.AioRpcError):
            await raw.unary_unary("/detex.v1.GeneratorService/PrefetchConcept")(b"\xff" * 2_000_000, timeout=60)


@pytest.mark.parametrize("ending", [refused_upload, refused_requests, cancelled_requests, cancelled_request, malformed])
def test_all_that_was_held_comes_back(ending: object) -> None:
    messages = MemoryBudget(20_000_000, what="the test", reason="TEST_MEMORY", longest_wait_seconds=0.0)

    async def scenario() -> None:
        async with running(messages=messages) as run:
            await ending(run)  # type: ignore[operator]
            with suppress(TimeoutError):
                async with asyncio.timeout(30):
                    while messages.held_bytes:
                        await asyncio.sleep(0.01)
            assert messages.held_bytes == 0
            await run.prefetch("plain")

    asyncio.run(scenario())
