"""Uploads at full speed: large files, and files in chunks of one byte."""

from collections.abc import AsyncIterator

from benchmarks.soak.attacks.attacker import PATIENCE_SECONDS, Attacker
from benchmarks.soak.attacks.payloads import MEBIBYTE
from detex_protos.v1 import trainer_pb2

_FILE_BYTES = 30 * MEBIBYTE


async def attack(attacker: Attacker) -> None:
    """Send noise as files of 30 MiB, four in large chunks and four in small ones."""
    large, small = [b"x" * MEBIBYTE] * 30, [b"x"] * 20_000
    await attacker.together(*(_flood(attacker, chunks) for chunks in [large, small] * 4))


async def _flood(attacker: Attacker, chunks: list[bytes]) -> None:
    async def sent() -> AsyncIterator[trainer_pb2.UploadTrainingSetRequest]:
        yield trainer_pb2.UploadTrainingSetRequest(header=trainer_pb2.TrainingSetHeader(class_word="mug"))
        file = trainer_pb2.FileHeader(kind=trainer_pb2.FILE_KIND_PHOTO, file_name="noise", size_bytes=_FILE_BYTES)
        yield trainer_pb2.UploadTrainingSetRequest(file=file)
        for chunk in chunks:
            yield trainer_pb2.UploadTrainingSetRequest(chunk=chunk)

    await attacker.call(attacker.tenant.trainer.UploadTrainingSet(sent(), **attacker.tenant.options(PATIENCE_SECONDS)))
