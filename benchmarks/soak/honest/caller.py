"""One honest tenant: the calls that it makes, each of which checks its answer and remembers what it was promised."""

import hashlib
import random
from collections.abc import AsyncIterator
from itertools import count

from benchmarks.soak.honest import pictures
from benchmarks.soak.honest.ledger import KeptConcept, KeptMask, KeptSet, Ledger
from benchmarks.soak.honest.wrong_answer import WrongAnswerError
from benchmarks.soak.tenant import Addresses, Tenant
from detex_protos.v1 import common_pb2, generator_pb2, trainer_pb2

PHOTOS_PER_SET = 3
PICTURE_SEED = 1
STREAM_REQUESTS = 4
JOB_SECONDS = 600.0
"""Longest wait for the end of a job."""

_SCENES = ("on a table", "on a beach", "in the snow", "in a forest", "on a street", "in a kitchen")
_MiB = 1024**2


class HonestCaller:
    """Calls of one tenant; to be made inside of a running event loop.

    Args:
        name: Name of the tenant.
        addresses: Where the services listen.
        side: Width and height of the pictures that it has drawn, in pixels.
        seed: Decides the content of all that it sends.

    Attributes:
        ledger: What it was promised.
    """

    def __init__(self, name: str, addresses: Addresses, *, side: int, seed: int) -> None:
        self.tenant = Tenant(name, addresses)
        self.ledger = Ledger()
        self._side = side
        self._random = random.Random(seed)
        self._numbers = count()
        self._job_set_id = ""

    async def set_up(self) -> None:
        """What it has before the measurement: photos for its jobs, a set whose masks it changes, and a concept."""
        await self.upload()
        await self.upload()
        self._job_set_id = self.ledger.sets[0].training_set.training_set_id
        await self.watch(await self.submit())

    async def close(self) -> None:
        """Close its connections."""
        await self.tenant.close()

    async def draw(self, priority: generator_pb2.Priority.ValueType) -> None:
        """One small picture."""
        request = self._request(priority)
        async for response in self.tenant.generator.Generate(request, **self.tenant.options()):
            if response.HasField("image"):
                self._check(request, response.image)
                return
        raise WrongAnswerError("a call of Generate ended well without a picture")

    async def draw_stream(self) -> None:
        """Several pictures through one stream of requests."""
        requests = {f"picture {n}": self._request(generator_pb2.PRIORITY_NORMAL) for n in range(STREAM_REQUESTS)}

        async def sent() -> AsyncIterator[generator_pb2.GenerateManyRequest]:
            for key, request in requests.items():
                yield generator_pb2.GenerateManyRequest(key=key, request=request)

        done = set()
        async for answer in self.tenant.generator.GenerateMany(sent(), **self.tenant.options()):
            if answer.HasField("error"):
                raise WrongAnswerError(f"within a stream: {answer.error.reason}: {answer.error.message}")
            if answer.HasField("response") and answer.response.HasField("image"):
                self._check(requests[answer.key], answer.response.image)
                done.add(answer.key)
        if done != set(requests):
            raise WrongAnswerError(f"a stream ended well with {len(done)} of {len(requests)} pictures")

    async def prefetch(self) -> None:
        """Ask for a concept ahead of its use."""
        name = self._any_concept()
        reference = common_pb2.ConceptReference(name=name)
        request = generator_pb2.PrefetchConceptRequest(reference=reference)
        answer = await self.tenant.generator.PrefetchConcept(request, **self.tenant.options())
        self._check_version(name, answer.concept.reference.version)

    async def upload(self) -> None:
        """Photos with their masks."""
        photos = [pictures.photo(self._random) for _ in range(PHOTOS_PER_SET)]
        masks = [pictures.mask(self._random) for _ in photos]
        files = [(trainer_pb2.FILE_KIND_PHOTO, index, pictures.png(each)) for index, each in enumerate(photos)]
        files += [(trainer_pb2.FILE_KIND_MASK, index, pictures.png(each)) for index, each in enumerate(masks)]

        async def sent() -> AsyncIterator[trainer_pb2.UploadTrainingSetRequest]:
            header = trainer_pb2.TrainingSetHeader(class_word="mug", keep_photos=True)
            yield trainer_pb2.UploadTrainingSetRequest(header=header)
            for kind, index, data in files:
                begin = trainer_pb2.FileHeader(
                    kind=kind,
                    photo_index=index,
                    file_name=f"{index}.png",
                    size_bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                )
                yield trainer_pb2.UploadTrainingSetRequest(file=begin)
                for start in range(0, len(data), _MiB):
                    yield trainer_pb2.UploadTrainingSetRequest(chunk=data[start : start + _MiB])

        answer = await self.tenant.trainer.UploadTrainingSet(sent(), **self.tenant.options())
        kept = [KeptMask(each.tobytes()) for each in masks]
        self.ledger.sets.append(KeptSet(answer.training_set, [each.tobytes() for each in photos], kept))

    async def look_at_mask(self) -> None:
        """A mask, which must be the one that it acknowledged last."""
        kept = self._random.choice(self.ledger.sets)
        index = self._random.randrange(PHOTOS_PER_SET)
        async with kept.changing:
            await self.check_mask(kept, index)

    async def check_mask(self, kept: KeptSet, index: int) -> None:
        """Raises WrongAnswerError where a mask is none of those that it may be."""
        request = trainer_pb2.GetMaskRequest(training_set_id=kept.training_set.training_set_id, photo_index=index)
        answer = await self.tenant.trainer.GetMask(request, **self.tenant.options())
        shown = pictures.pixels(answer.mask_png, "L")
        if shown not in (kept.masks[index].acknowledged, *kept.masks[index].perhaps):
            raise WrongAnswerError(f"mask {index} of {request.training_set_id} is not the one that was acknowledged")

    async def replace_mask(self) -> None:
        """Another mask in the place of one, of a set that no job uses."""
        kept = self._random.choice(self.ledger.sets[1:])
        index = self._random.randrange(PHOTOS_PER_SET)
        mask = pictures.mask(self._random)
        request = trainer_pb2.ReplaceMaskRequest(
            training_set_id=kept.training_set.training_set_id, photo_index=index, mask=pictures.png(mask)
        )
        async with kept.changing:
            kept.masks[index].perhaps.append(mask.tobytes())
            answer = await self.tenant.trainer.ReplaceMask(request, **self.tenant.options())
            kept.masks[index] = KeptMask(mask.tobytes())
            kept.training_set = answer.training_set

    async def submit(self) -> str:
        """A job; returns its id."""
        name = f"product-{next(self._numbers)}"
        request = trainer_pb2.SubmitJobRequest(
            training_set_id=self._job_set_id,
            concept_name=name,
            method=common_pb2.METHOD_TEXTUAL_INVERSION,
            idempotency_key=f"{name} of this run",
            hyperparameters=trainer_pb2.Hyperparameters(steps=2, batch_size=1, seed=0),
        )
        answer = await self.tenant.trainer.SubmitJob(request, **self.tenant.options())
        self.ledger.jobs[answer.job.job_id] = name
        return str(answer.job.job_id)

    async def watch(self, job_id: str) -> None:
        """Follow a job to its end, and draw with what it has published."""
        await self.keep_concept(await self.ended(job_id))

    async def ended(self, job_id: str) -> trainer_pb2.Job:
        """A job when it has ended."""
        job = trainer_pb2.Job()
        request = trainer_pb2.WatchJobRequest(job_id=job_id)
        async for news in self.tenant.trainer.WatchJob(request, **self.tenant.options(JOB_SECONDS)):
            if news.HasField("job"):
                job = news.job
        return job

    async def keep_concept(self, job: trainer_pb2.Job) -> None:
        """Remember what a job that has ended has published; raises WrongAnswerError where that is nothing."""
        if job.state != trainer_pb2.JOB_STATE_SUCCEEDED:
            state = trainer_pb2.JobState.Name(job.state)
            raise WrongAnswerError(f"a job that can train ended as {state}: {job.failure.reason} {job.failure.message}")
        request = trainer_pb2.GetConceptRequest(reference=job.concept)
        concept = (await self.tenant.trainer.GetConcept(request, **self.tenant.options())).concept
        self.ledger.concepts[job.concept_name] = KeptConcept(concept, await self.picture(job.concept_name))

    async def picture(self, concept: str) -> bytes:
        """PNG of a concept, always drawn alike."""
        request = self._request(generator_pb2.PRIORITY_NORMAL)
        request.prompt, request.seed = f"a photo of a [{concept}] on a table", PICTURE_SEED
        async for response in self.tenant.generator.Generate(request, **self.tenant.options()):
            if response.HasField("image"):
                return bytes(response.image.png)
        raise WrongAnswerError(f"the concept {concept} was drawn without a picture")

    async def read_job(self) -> None:
        """A job as it stands."""
        job_id, name = self._random.choice(list(self.ledger.jobs.items()))
        answer = await self.tenant.trainer.GetJob(trainer_pb2.GetJobRequest(job_id=job_id), **self.tenant.options())
        if answer.job.concept_name != name:
            raise WrongAnswerError(f"the job {job_id} is to publish {answer.job.concept_name}, not {name}")

    async def list_concepts(self) -> None:
        """All its concepts."""
        known = set(self.ledger.concepts)
        request = trainer_pb2.ListConceptsRequest(page_size=1000)
        answer = await self.tenant.trainer.ListConcepts(request, **self.tenant.options())
        if missing := known - {each.reference.name for each in answer.concepts}:
            raise WrongAnswerError(f"concepts are missing in the list: {sorted(missing)}")

    def _any_concept(self) -> str:
        return self._random.choice(list(self.ledger.concepts))

    def _request(self, priority: generator_pb2.Priority.ValueType) -> generator_pb2.GenerateRequest:
        """A small picture; seven of ten are of a concept."""
        subject = "mug"
        if self.ledger.concepts and self._random.random() < 0.7:
            subject = f"[{self._any_concept()}]"
        return generator_pb2.GenerateRequest(
            prompt=f"a photo of a {subject} {self._random.choice(_SCENES)}",
            seed=self._random.randrange(2**32 - 64),
            steps=6,
            width=self._side,
            height=self._side,
            priority=priority,
        )

    def _check(self, request: generator_pb2.GenerateRequest, image: generator_pb2.GeneratedImage) -> None:
        if pictures.size(image.png) != (request.width, request.height):
            raise WrongAnswerError(f"a picture has the size {pictures.size(image.png)}")
        if (image.provenance.prompt, image.seed) != (request.prompt, request.seed):
            raise WrongAnswerError(f"a picture was drawn from {image.provenance.prompt!r} and seed {image.seed}")
        for used in image.provenance.concepts:
            self._check_version(used.reference.name, used.reference.version)
        self.ledger.images += 1

    def _check_version(self, name: str, version: str) -> None:
        expected = self.ledger.concepts[name].concept.reference.version
        if version != expected:
            raise WrongAnswerError(f"version {version} of {name} was used, not {expected}")
