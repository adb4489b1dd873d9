"""The real services' contracts with handlers that do as the request says; also a program, to be ended by signals."""

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from pydantic import BaseModel

from detex_core.errors import (
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    DetexError,
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    Violation,
    invalid_input,
)
from detex_core.grpc_server import Server, Service, request_error
from detex_core.logging import configure_logging
from detex_core.metrics import new_registry
from detex_core.settings import ServiceSettings
from detex_core.tenancy import current_tenant
from detex_protos.v1 import generator_pb2, generator_pb2_grpc, trainer_pb2, trainer_pb2_grpc

GENERATOR = "detex.v1.GeneratorService"
TRAINER = "detex.v1.TrainerService"


class Strict(BaseModel):
    number: int


def fail(how: str) -> None:
    """Raise the error of that name; do nothing where there is none."""
    failures: dict[str, Callable[[], BaseException]] = {
        "invalid": lambda: invalid_input("reference.name", "'x y'", "a to z"),
        "two": lambda: InvalidInputError(Violation("steps", "0", "1 to 500"), Violation("count", "65", "1 to 64")),
        "huge": lambda: InvalidInputError(
            *(Violation(f"field{i}" * 100, "ü" * 2_000, "b" * 2_000) for i in range(100))
        ),
        "huge_ascii": lambda: InvalidInputError(*(Violation("f" * 999, "a" * 9_999, "b" * 9_999) for _ in range(100))),
        "many": lambda: InvalidInputError(*(Violation(f"f{i}", "%", "\n\0") for i in range(1_000))),
        "not_found": lambda: NotFoundError("Tenant 'acme' has no concept 'mug'.", reason="CONCEPT_NOT_FOUND"),
        "already_exists": lambda: AlreadyExistsError("there is one"),
        "failed_precondition": lambda: FailedPreconditionError("other base model"),
        "permission_denied": lambda: PermissionDeniedError("no"),
        "resource_exhausted": lambda: ResourceExhaustedError("queue is full", retry_delay_seconds=2.5),
        "unavailable": lambda: UnavailableError("store is gone"),
        "data_loss": lambda: DataLossError("flipped bit"),
        "aborted": lambda: AbortedError("race"),
        "base": lambda: DetexError("unspecific"),
        "cancelled": asyncio.CancelledError,
        "defect": lambda: KeyError("secret of the house"),
    }
    if how in failures:
        raise failures[how]()
    if how == "validation":
        Strict(number="secret of the house")  # type: ignore[arg-type]


class SampleGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    """Counts the streams that it has begun and ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.release = asyncio.Event()

    async def PrefetchConcept(self, request: Any, context: Any) -> Any:
        how = request.reference.name
        if how == "abort":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "by the handler itself")
        if how == "set_code":
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        fail(how)
        seen = await asyncio.to_thread(current_tenant) if how == "thread" else current_tenant()
        return generator_pb2.PrefetchConceptResponse(concept=generator_pb2.ResidentConcept(base_model=seen))

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.begun.set()
        try:
            for step in range(1, request.count + 1):
                yield generator_pb2.GenerateResponse(progress=generator_pb2.Progress(step=step))
            fail(request.prompt)
            if request.prompt == "wait":
                await self.release.wait()
                yield generator_pb2.GenerateResponse(preview=generator_pb2.Preview(step=99))
        finally:
            self.ended.set()

    async def GenerateMany(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.key == "fail":
                fail(request.request.prompt)
            try:
                fail(request.request.prompt)
            except Exception as error:
                yield generator_pb2.GenerateManyResponse(key=request.key, error=request_error(error))
            else:
                yield generator_pb2.GenerateManyResponse(key=request.key, done=generator_pb2.RequestDone(images=1))


class SampleTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    async def UploadTrainingSet(self, requests: Any, context: Any) -> Any:
        size = 0
        async for request in requests:
            fail(request.header.class_word)
            size += len(request.chunk)
        return trainer_pb2.UploadTrainingSetResponse(
            training_set=trainer_pb2.TrainingSet(training_set_id=f"{current_tenant()}/{size}")
        )


async def always_ready() -> None:
    """A check that finds nothing wrong."""


def sample_services(generator: SampleGenerator, check: Callable[[], Any] = always_ready) -> list[Service]:
    """Both services; `check` is the generator's."""
    add_generator = generator_pb2_grpc.add_GeneratorServiceServicer_to_server
    add_trainer = trainer_pb2_grpc.add_TrainerServiceServicer_to_server
    return [
        Service(GENERATOR, functools.partial(add_generator, generator), check),
        Service(TRAINER, functools.partial(add_trainer, SampleTrainer()), always_ready),
    ]


async def main() -> None:
    """Serve until a signal comes; a stream that waits goes on when a line comes on standard input."""
    settings = ServiceSettings()
    configure_logging(settings)
    generator = SampleGenerator()
    server = Server(settings, sample_services(generator), new_registry("sample"))
    await server.start()
    print(server.address, flush=True)  # noqa: T201
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), generator.release.set)
    await server.run()


if __name__ == "__main__":
    asyncio.run(main())
