"""The hostile tenant: its connections, what it owns, what it knows of others, and how its calls ended."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from pydantic import BaseModel, ConfigDict

from benchmarks.soak.attacks import payloads
from benchmarks.soak.tenant import Addresses, Tenant
from detex_protos.v1 import generator_pb2, trainer_pb2

PATIENCE_SECONDS = 600.0
GENERATOR, TRAINER = "/detex.v1.GeneratorService/", "/detex.v1.TrainerService/"


class Knowledge(BaseModel):
    """What the hostile tenant has and knows when it begins.

    Attributes:
        concepts: Names of concepts of its own that can be drawn.
        damaged_concepts: Names of concepts of its own whose files are not what their manifests say.
        others_training_sets: Ids of training sets of other tenants.
        others_jobs: Ids of jobs of other tenants.
        others_concepts: Names of concepts of other tenants.
        others_versions: Versions of those concepts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concepts: tuple[str, ...] = ()
    damaged_concepts: tuple[str, ...] = ()
    others_training_sets: tuple[str, ...] = ()
    others_jobs: tuple[str, ...] = ()
    others_concepts: tuple[str, ...] = ()
    others_versions: tuple[str, ...] = ()


@dataclass
class Attacker:
    """What an attack has to hand.

    Attributes:
        tenant: The hostile tenant.
        addresses: Where the services listen.
        knowledge: What it has and knows.
        random: Its dice.
        ended: How its calls ended, by status; `given up` where the time of the attack was over before.
    """

    tenant: Tenant
    addresses: Addresses
    knowledge: Knowledge
    random: random.Random
    ended: Counter[str] = field(default_factory=Counter)

    async def call(self, call: Awaitable[Any]) -> Any:
        """Await a call; returns its answer, or None where it failed."""
        answers = []
        with self._counted():
            answers.append(await call)
        return answers[0] if answers else None

    async def read(self, stream: AsyncIterator[Any], pause_seconds: float = 0.0) -> list[Any]:
        """Read a stream to its end, with a pause after each message; returns what came."""
        answers = []
        with self._counted():
            async for answer in stream:
                answers.append(answer)
                await asyncio.sleep(pause_seconds)
        return answers

    async def draw(self, *, timeout_seconds: float = PATIENCE_SECONDS, **fields: Any) -> list[Any]:
        """Call Generate and read all that it says; one step of a plain prompt unless `fields` say otherwise."""
        defaults: dict[str, Any] = {"prompt": "a mug", "steps": 1, "width": 64, "height": 64}
        request = generator_pb2.GenerateRequest(**defaults | fields)
        return await self.read(self.tenant.generator.Generate(request, **self.tenant.options(timeout_seconds)))

    async def draw_many(self, requests: Iterable[generator_pb2.GenerateManyRequest], pause_seconds: float = 0) -> None:
        """Call GenerateMany and read all that it says."""

        async def sent() -> AsyncIterator[generator_pb2.GenerateManyRequest]:
            for request in requests:
                yield request

        stream = self.tenant.generator.GenerateMany(sent(), **self.tenant.options(PATIENCE_SECONDS))
        await self.read(stream, pause_seconds)

    async def edit(self, image: bytes, mask: bytes = b"") -> None:
        """Have a photo drawn anew."""
        kind = generator_pb2.EDIT_KIND_INPAINT if mask else generator_pb2.EDIT_KIND_IMAGE_TO_IMAGE
        await self.draw(edit=generator_pb2.Edit(kind=kind, image=image, mask=mask))

    async def upload(
        self,
        photos: Iterable[bytes] = (),
        masks: Iterable[bytes] = (),
        *,
        class_word: str = "mug",
        caption: str = "",
        upload_id: str = "",
    ) -> str:
        """Upload photos and masks; returns the id of the set, empty where the call failed."""
        files = [(trainer_pb2.FILE_KIND_PHOTO, index, data) for index, data in enumerate(photos)]
        files += [(trainer_pb2.FILE_KIND_MASK, index, data) for index, data in enumerate(masks)]

        async def sent() -> AsyncIterator[trainer_pb2.UploadTrainingSetRequest]:
            header = trainer_pb2.TrainingSetHeader(
                class_word=class_word,
                keep_photos=True,
                upload_id=upload_id,
                file_count=len(files) if upload_id else 0,
            )
            yield trainer_pb2.UploadTrainingSetRequest(header=header)
            for kind, index, data in files:
                begin = trainer_pb2.FileHeader(
                    kind=kind,
                    photo_index=index,
                    file_name=f"{index}.png",
                    size_bytes=len(data),
                    caption=caption if kind == trainer_pb2.FILE_KIND_PHOTO else "",
                )
                yield trainer_pb2.UploadTrainingSetRequest(file=begin)
                for start in range(0, len(data), payloads.MEBIBYTE):
                    yield trainer_pb2.UploadTrainingSetRequest(chunk=data[start : start + payloads.MEBIBYTE])

        answer = await self.call(self.tenant.trainer.UploadTrainingSet(sent(), **self.tenant.options(PATIENCE_SECONDS)))
        return answer.training_set.training_set_id if answer else ""

    async def upload_small(self, photos: int = 2) -> str:
        """Upload photos without fault; returns the id of the set."""
        return await self.upload([payloads.small_photo()] * photos, [payloads.small_mask()] * photos)

    async def submit(self, training_set_id: str, concept_name: str = "mischief", **fields: Any) -> str:
        """Submit a job; returns its id, empty where it was refused."""
        request = trainer_pb2.SubmitJobRequest(training_set_id=training_set_id, concept_name=concept_name, **fields)
        answer = await self.ask(self.tenant.trainer.SubmitJob, request)
        return answer.job.job_id if answer else ""

    async def cancel(self, job_id: str) -> None:
        """Cancel a job."""
        await self.ask(self.tenant.trainer.CancelJob, trainer_pb2.CancelJobRequest(job_id=job_id))

    async def ask(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """Call a method that takes one message and gives one."""
        return await self.call(method(request, **self.tenant.options(PATIENCE_SECONDS)))

    async def send_bytes(
        self, method: str, data: bytes, compression: grpc.Compression = grpc.Compression.NoCompression
    ) -> None:
        """Send bytes in the place of a message."""
        # The published types have no place for methods without serializers.
        channel: Any = self.tenant.generator_channel if method.startswith(GENERATOR) else self.tenant.trainer_channel
        options = self.tenant.options(PATIENCE_SECONDS) | {"compression": compression}
        if method.endswith("/Generate"):
            await self.read(channel.unary_stream(method)(data, **options))
        else:
            await self.call(channel.unary_unary(method)(data, **options))

    async def together(self, *attempts: Coroutine[Any, Any, Any]) -> None:
        """Make attempts at the same time; returns when all have ended."""
        async with asyncio.TaskGroup() as tasks:
            for attempt in attempts:
                tasks.create_task(attempt)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count how the call inside the block ends; a status does not leave it."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            self.ended[error.code().name] += 1
        except asyncio.CancelledError:
            self.ended["given up"] += 1
            raise
        else:
            self.ended["OK"] += 1
