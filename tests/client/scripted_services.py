"""Trainer and generator that answer as a test tells them: the client's own behaviour is under test, not theirs.

They run in the real server of the services, over real sockets: errors, tenants and deadlines travel as they always do.
"""

import asyncio
import hashlib
import io
import threading
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from PIL import Image

from detex_core.errors import InvalidInputError, NotFoundError, UnavailableError, invalid_input
from detex_core.grpc_server import Server, Service
from detex_core.grpc_server.status import request_error
from detex_core.metrics import new_registry
from detex_core.settings import ServiceSettings
from detex_core.tenancy import current_tenant
from detex_protos.v1 import common_pb2, generator_pb2, trainer_pb2
from detex_protos.v1.generator_pb2_grpc import GeneratorServiceServicer, add_GeneratorServiceServicer_to_server
from detex_protos.v1.trainer_pb2_grpc import TrainerServiceServicer, add_TrainerServiceServicer_to_server

VERSION = "20260101T000000Z-0123abcd"


class ScriptedTrainer(TrainerServiceServicer):
    """Keeps uploads and jobs in memory.

    Attributes:
        failures: Raised by the next calls, one each, before they do anything; None lets a call through.
        files: What was uploaded last: (kind, photo index, file name, caption, bytes).
        largest_chunk: Size of the largest chunk that came.
        chunks_before_breaking: Chunks of the next upload until its stream breaks off; below 0 for never.
        spool: Bytes of files by upload, kind, photo index and hash.
        tenants: Tenants of all calls.
        jobs: Jobs by id.
        idempotency_keys: Key of each submission that got through, and of those that failed.
        news: What a watch sends after the job: progress, previews, errors to raise, and "end" for the end of the job.
        cancel_takes_effect: Whether a cancelled job ever stops.
        watching: Set while a watch has sent all its news and waits.
    """

    def __init__(self) -> None:
        self.failures: deque[Exception | None] = deque()
        self.files: list[tuple[int, int, str, str, bytes]] = []
        self.largest_chunk = 0
        self.chunks_before_breaking = -1
        self.spool: dict[tuple[str, int, int, str], bytearray] = {}
        self.tenants: list[str] = []
        self.jobs: dict[str, trainer_pb2.Job] = {}
        self.idempotency_keys: list[str] = []
        self.concepts: dict[str, trainer_pb2.Concept] = {}
        self.report_error: Exception | None = None
        self.base_models: list[common_pb2.BaseModel] = []
        self.reports: dict[str, trainer_pb2.GetConceptReportResponse] = {}
        self.news: deque[Any] = deque()
        self.cancel_takes_effect = True
        self.watching = threading.Event()
        self._cancelled: dict[str, asyncio.Event] = {}

    def _enter(self) -> None:
        self.tenants.append(current_tenant())
        failure = self.failures.popleft() if self.failures else None
        if failure is not None:
            raise failure

    async def UploadTrainingSet(self, request_iterator: Any, context: Any) -> Any:
        self._enter()
        class_word, upload_id, headers, contents = "", "", [], []
        chunks_left, self.chunks_before_breaking = self.chunks_before_breaking, -1
        async for request in request_iterator:
            match request.WhichOneof("part"):
                case "header":
                    class_word, upload_id = request.header.class_word, request.header.upload_id
                case "file":
                    headers.append(request.file)
                    file = (upload_id, request.file.kind, request.file.photo_index, request.file.sha256)
                    contents.append(self.spool.setdefault(file, bytearray()))
                    assert len(contents[-1]) == request.file.offset_bytes, "the client goes on where it was"
                case "chunk":
                    if chunks_left == 0:
                        raise UnavailableError("The network is gone.")
                    chunks_left -= 1
                    self.largest_chunk = max(self.largest_chunk, len(request.chunk))
                    contents[-1] += request.chunk
        self.files = []
        for header, content in zip(headers, contents, strict=True):
            if (header.size_bytes, header.sha256) != (len(content), hashlib.sha256(content).hexdigest()):
                raise invalid_input("file", header.file_name, "a file of the size and hash in its header")
            self.files.append((header.kind, header.photo_index, header.file_name, header.caption, bytes(content)))
        photos = [
            trainer_pb2.TrainingPhoto(
                photo_index=index, width=64, height=64, mask_source=trainer_pb2.MASK_SOURCE_UPLOADED
            )
            for index in range(sum(kind == trainer_pb2.FILE_KIND_PHOTO for kind, *_ in self.files))
        ]
        if len(photos) < 2:
            raise invalid_input("photos", f"{len(photos)} photo", "2 to 64 photos")
        training_set = trainer_pb2.TrainingSet(
            training_set_id="set-1", class_word=class_word, photos=photos, warnings=["Photo 0 is small."]
        )
        return trainer_pb2.UploadTrainingSetResponse(training_set=training_set)

    async def GetUpload(self, request: Any, context: Any) -> Any:
        files = [
            trainer_pb2.ReceivedFile(kind=kind, photo_index=index, sha256=sha256, received_bytes=len(received))
            for (upload_id, kind, index, sha256), received in self.spool.items()
            if upload_id == request.upload_id
        ]
        return trainer_pb2.GetUploadResponse(files=files)

    async def SubmitJob(self, request: Any, context: Any) -> Any:
        self.idempotency_keys.append(request.idempotency_key)
        self._enter()
        if request.hyperparameters.HasField("steps") and not request.hyperparameters.steps:
            raise invalid_input("hyperparameters.steps", 0, "1 to 20,000")
        job = trainer_pb2.Job(
            job_id=f"job-{len(self.jobs)}",
            state=trainer_pb2.JOB_STATE_QUEUED,
            concept_name=request.concept_name,
            training_set_id=request.training_set_id,
            method=request.method,
            hyperparameters=request.hyperparameters,
            attributes=request.attributes or ["pose", "background"],
            base_model="tiny",
        )
        job.create_time.FromJsonString("2026-01-01T00:00:00Z")
        self.jobs[job.job_id] = job
        return trainer_pb2.SubmitJobResponse(job=job)

    def _job(self, job_id: str) -> Any:
        if job_id not in self.jobs:
            raise NotFoundError(f"There is no job {job_id}.", reason="JOB_NOT_FOUND")
        return self.jobs[job_id]

    async def GetJob(self, request: Any, context: Any) -> Any:
        self._enter()
        return trainer_pb2.GetJobResponse(job=self._job(request.job_id))

    async def ListJobs(self, request: Any, context: Any) -> Any:
        self._enter()
        wanted = [job for job in self.jobs.values() if not request.states or job.state in request.states]
        start = int(request.page_token or 0)
        page = wanted[start : start + 2]
        token = str(start + 2) if start + 2 < len(wanted) else ""
        return trainer_pb2.ListJobsResponse(jobs=page, next_page_token=token)

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._enter()
        job = self._job(request.job_id)
        cancelled = self._cancelled.setdefault(job.job_id, asyncio.Event())
        yield trainer_pb2.WatchJobResponse(job=job)
        while self.news:
            event = self.news.popleft()
            match event:
                case Exception():
                    raise event
                case "end":
                    job.state = trainer_pb2.JOB_STATE_SUCCEEDED
                    job.concept.CopyFrom(common_pb2.ConceptReference(name=job.concept_name, version=VERSION))
                case trainer_pb2.JobFailure():
                    job.state = trainer_pb2.JOB_STATE_FAILED
                    job.failure.CopyFrom(event)
                case trainer_pb2.JobPreview():
                    yield trainer_pb2.WatchJobResponse(preview=event)
                case trainer_pb2.JobProgress():
                    job.state = trainer_pb2.JOB_STATE_RUNNING
                    job.progress.CopyFrom(event)
                    yield trainer_pb2.WatchJobResponse(progress=event)
        if job.state not in (trainer_pb2.JOB_STATE_SUCCEEDED, trainer_pb2.JOB_STATE_FAILED):
            self.watching.set()
            await cancelled.wait()
            job.state = trainer_pb2.JOB_STATE_CANCELLED
        yield trainer_pb2.WatchJobResponse(job=job)

    async def CancelJob(self, request: Any, context: Any) -> Any:
        self._enter()
        job = self._job(request.job_id)
        self.watching.clear()
        if self.cancel_takes_effect:
            self._cancelled.setdefault(job.job_id, asyncio.Event()).set()
        return trainer_pb2.CancelJobResponse(job=job)

    async def GetConcept(self, request: Any, context: Any) -> Any:
        self._enter()
        if request.reference.name not in self.concepts:
            raise NotFoundError(f"There is no concept {request.reference.name}.", reason="CONCEPT_NOT_FOUND")
        return trainer_pb2.GetConceptResponse(concept=self.concepts[request.reference.name])

    async def GetConceptReport(self, request: Any, context: Any) -> Any:
        self._enter()
        if self.report_error is not None:
            raise self.report_error
        concept, report = self.concepts.get(request.reference.name), self.reports.get(request.reference.name)
        if concept is None or report is None:
            raise NotFoundError(f"{request.reference.name} has no report.", reason="REPORT_NOT_FOUND")
        report.reference.CopyFrom(concept.reference)
        return report

    async def ListConcepts(self, request: Any, context: Any) -> Any:
        self._enter()
        return trainer_pb2.ListConceptsResponse(concepts=self.concepts.values())

    async def DeleteConcept(self, request: Any, context: Any) -> Any:
        self._enter()
        concept = self.concepts.pop(request.reference.name, None)
        if concept is None:
            raise NotFoundError(f"There is no concept {request.reference.name}.", reason="CONCEPT_NOT_FOUND")
        return trainer_pb2.DeleteConceptResponse(deleted=[concept.reference], deleted_keys=["concepts/a"])

    async def ListTrainableBaseModels(self, request: Any, context: Any) -> Any:
        self._enter()
        if not self.base_models:
            await asyncio.Event().wait()  # never answers, for tests of deadlines
        return trainer_pb2.ListTrainableBaseModelsResponse(base_models=self.base_models)

    async def ListMethods(self, request: Any, context: Any) -> Any:
        self._enter()
        defaults = trainer_pb2.Hyperparameters(steps=500, subject_learning_rate=2e-3, mapper_fixed_norm=False)
        return trainer_pb2.ListMethodsResponse(
            base_model=common_pb2.BaseModel(name=request.base_model or "showroom", family="stable_diffusion"),
            methods=[trainer_pb2.MethodDescription(method=common_pb2.METHOD_DETEX, defaults=defaults)],
        )

    def add_concept(self, name: str) -> None:
        """Have a concept of this name."""
        concept = trainer_pb2.Concept(
            reference=common_pb2.ConceptReference(name=name, version=VERSION),
            method=common_pb2.METHOD_DETEX,
            class_word="mug",
            attributes=[trainer_pb2.ConceptAttribute(name="pose", count=2)],
            size_bytes=1_500_000,
        )
        concept.create_time.FromJsonString("2026-01-01T00:00:00Z")
        self.concepts[name] = concept


def progress(step: int, total_steps: int = 4) -> trainer_pb2.JobProgress:
    """Progress of a job that trains."""
    found = trainer_pb2.JobProgress(
        phase=trainer_pb2.JOB_PHASE_TRAINING,
        step=step,
        total_steps=total_steps,
        losses={"total": 1.0 / (step + 1)},
        steps_per_second=8.0,
    )
    found.time_left.FromMilliseconds(125 * (total_steps - step))
    return found


class ScriptedGenerator(GeneratorServiceServicer):
    """Draws grey squares.

    Attributes:
        requests: All requests that came.
        hold: While set, pictures take for ever.
        abandoned: Set when a caller leaves before the end.
    """

    def __init__(self) -> None:
        self.requests: list[generator_pb2.GenerateRequest] = []
        self.hold = False
        self.abandoned = threading.Event()

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        async for response in self._drawn(request):
            yield response

    async def _drawn(self, request: Any) -> AsyncIterator[Any]:
        if "[unknown]" in request.prompt:
            raise NotFoundError("There is no concept unknown.", reason="CONCEPT_NOT_FOUND")
        if "busy" in request.prompt:
            raise UnavailableError("Too many pictures wait.", reason="OVERLOADED", retry_delay_seconds=2.5)
        if request.guidance_scale != request.guidance_scale:
            raise invalid_input("guidance_scale", request.guidance_scale, "0 to 50")
        for index, region in enumerate(request.regions):
            if region.mask == b"no picture":
                raise invalid_input(f"regions[{index}].mask", "a file that begins with b'no pictu'", "a picture")
        steps = request.steps or 2
        yield generator_pb2.GenerateResponse(queued=generator_pb2.Queued(request_id="r-1", queue_position=3))
        try:
            while self.hold:
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.abandoned.set()
            raise
        for index in range(max(request.count, 1)):
            for step in range(1, steps + 1):
                yield generator_pb2.GenerateResponse(
                    progress=generator_pb2.Progress(image_index=index, step=step, total_steps=steps)
                )
            if request.preview_interval_steps:
                yield generator_pb2.GenerateResponse(
                    preview=generator_pb2.Preview(image_index=index, step=1, png=png())
                )
            seed = request.seed + index
            provenance = generator_pb2.Provenance(
                prompt=request.prompt, seed=seed, steps=steps, solver=generator_pb2.SOLVER_DDIM, width=8, height=8
            )
            yield generator_pb2.GenerateResponse(
                image=generator_pb2.GeneratedImage(image_index=index, png=png(), seed=seed, provenance=provenance)
            )

    async def GenerateMany(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            self.requests.append(request.request)
            try:
                async for response in self._drawn(request.request):
                    yield generator_pb2.GenerateManyResponse(key=request.key, response=response)
            except (NotFoundError, InvalidInputError) as error:
                yield generator_pb2.GenerateManyResponse(key=request.key, error=request_error(error))
                continue
            done = generator_pb2.RequestDone(images=request.request.count)
            yield generator_pb2.GenerateManyResponse(key=request.key, done=done)


def png() -> bytes:
    """A grey square."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(file, "PNG")
    return file.getvalue()


class RunningServer:
    """A server on a free loopback port, in a thread of its own.

    Attributes:
        address: Where it serves.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self.address = ""

    async def _serve(self) -> None:
        settings = ServiceSettings(
            listen_address="127.0.0.1:0", metrics_address="", drain_grace_seconds=0, readiness_interval_seconds=0.05
        )
        server = Server(settings, [self._service], new_registry("test"))
        self._stop = asyncio.Event()
        await server.start()
        self.address = server.address
        self._started.set()
        await self._stop.wait()
        await server.drain()

    def __enter__(self) -> "RunningServer":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()


async def _ready() -> None:
    pass


def serve_trainer(trainer: ScriptedTrainer) -> RunningServer:
    """A server with this trainer."""
    return RunningServer(
        Service("detex.v1.TrainerService", partial(add_TrainerServiceServicer_to_server, trainer), _ready)
    )


def serve_generator(generator: ScriptedGenerator) -> RunningServer:
    """A server with this generator."""
    return RunningServer(
        Service("detex.v1.GeneratorService", partial(add_GeneratorServiceServicer_to_server, generator), _ready)
    )
