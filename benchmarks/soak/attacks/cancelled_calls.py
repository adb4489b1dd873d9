"""Calls that are given up in their midst."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.soak.attacks import payloads
from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import generator_pb2, trainer_pb2

_AT_ONCE = 8


async def attack(attacker: Attacker) -> None:
    """Pictures, streams of pictures and uploads; each is cancelled after its first message."""
    await attacker.together(
        *(_cancel_drawing(attacker) for _ in range(_AT_ONCE)),
        *(_cancel_stream(attacker) for _ in range(_AT_ONCE)),
        *(_cancel_upload(attacker) for _ in range(_AT_ONCE)),
    )


async def _cancel_drawing(attacker: Attacker) -> None:
    request = generator_pb2.GenerateRequest(prompt="a mug", count=16, steps=50, width=64, height=64)
    await _first_message(attacker, attacker.tenant.generator.Generate(request, **attacker.tenant.options()))


async def _cancel_stream(attacker: Attacker) -> None:
    async def sent() -> AsyncIterator[generator_pb2.GenerateManyRequest]:
        for key in range(100):
            request = generator_pb2.GenerateRequest(prompt="a mug", steps=50, width=64, height=64)
            yield generator_pb2.GenerateManyRequest(key=str(key), request=request)

    await _first_message(attacker, attacker.tenant.generator.GenerateMany(sent(), **attacker.tenant.options()))


async def _first_message(attacker: Attacker, call: Any) -> None:
    async def read() -> None:
        async for _ in call:
            call.cancel()
            return

    await attacker.call(read())


async def _cancel_upload(attacker: Attacker) -> None:
    async def sent() -> AsyncIterator[trainer_pb2.UploadTrainingSetRequest]:
        yield trainer_pb2.UploadTrainingSetRequest(header=trainer_pb2.TrainingSetHeader(class_word="mug"))
        file = trainer_pb2.FileHeader(kind=trainer_pb2.FILE_KIND_PHOTO, file_name="cut", size_bytes=payloads.MEBIBYTE)
        yield trainer_pb2.UploadTrainingSetRequest(file=file)
        yield trainer_pb2.UploadTrainingSetRequest(chunk=b"x" * 1000)
        call.cancel()
        await asyncio.sleep(0)

    call = attacker.tenant.trainer.UploadTrainingSet(sent(), **attacker.tenant.options())
    try:
        await attacker.call(call)
    except asyncio.CancelledError:
        if not call.cancelled():  # it is the attack that ends
            raise
