"""Uploads that send a byte now and then, to keep the places that uploads have."""

import asyncio
from collections.abc import AsyncIterator

from benchmarks.soak.attacks.attacker import PATIENCE_SECONDS, Attacker
from detex_protos.v1 import trainer_pb2

_UPLOADS, _BYTES, _PAUSE_SECONDS = 16, 10_000, 0.5


async def attack(attacker: Attacker) -> None:
    """Begin more uploads than the trainer has places, and end none."""
    await attacker.together(*(_drip(attacker) for _ in range(_UPLOADS)))


async def _drip(attacker: Attacker) -> None:
    async def sent() -> AsyncIterator[trainer_pb2.UploadTrainingSetRequest]:
        yield trainer_pb2.UploadTrainingSetRequest(header=trainer_pb2.TrainingSetHeader(class_word="mug"))
        file = trainer_pb2.FileHeader(kind=trainer_pb2.FILE_KIND_PHOTO, file_name="drip.png", size_bytes=_BYTES)
        yield trainer_pb2.UploadTrainingSetRequest(file=file)
        for _ in range(_BYTES):
            yield trainer_pb2.UploadTrainingSetRequest(chunk=b"x")
            await asyncio.sleep(_PAUSE_SECONDS)

    await attacker.call(attacker.tenant.trainer.UploadTrainingSet(sent(), **attacker.tenant.options(PATIENCE_SECONDS)))
