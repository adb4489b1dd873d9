"""A server with the sample services in the loop of the test, and its callers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from detex_core.grpc_server import Server
from detex_core.memory_budget import MemoryBudget
from detex_core.metrics import new_registry
from detex_core.settings import ServiceSettings
from detex_protos.v1 import common_pb2, generator_pb2, generator_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from tests.core.sample_services import GENERATOR, TRAINER, SampleGenerator, always_ready, sample_services

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Running:
    server: Server
    handlers: SampleGenerator
    registry: CollectorRegistry
    generator: Any
    trainer: Any
    health: Any
    reflection: Any

    async def prefetch(self, how: str, **options: Any) -> Any:
        reference = common_pb2.ConceptReference(name=how)
        return await self.generator.PrefetchConcept(
            generator_pb2.PrefetchConceptRequest(reference=reference), timeout=10, **options
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def settings(**changes: Any) -> ServiceSettings:
    return ServiceSettings(
        **{
            "listen_address": "127.0.0.1:0",
            "metrics_address": "127.0.0.1:0",
            "readiness_interval_seconds": 0.02,
            "drain_grace_seconds": 5,
            **changes,
        }
    )


@asynccontextmanager
async def running(
    check: Callable[[], Awaitable[None]] = always_ready,
    interceptors: Any = (),
    messages: MemoryBudget | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    handlers = SampleGenerator()
    registry = new_registry("sample")
    services = sample_services(handlers, check)
    server = Server(settings(**changes), services, registry, interceptors=interceptors, messages=messages)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield Running(
                server,
                handlers,
                registry,
                generator_pb2_grpc.GeneratorServiceStub(channel),
                trainer_pb2_grpc.TrainerServiceStub(channel),
                health_pb2_grpc.HealthStub(channel),
                reflection_pb2_grpc.ServerReflectionStub(channel),
            )
    finally:
        await server.drain()


def details(error: grpc.aio.AioRpcError) -> dict[type, Any]:
    """The google.rpc details of a failed call by their type."""
    (packed,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = Status.FromString(packed)  # type: ignore[arg-type]
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found: dict[type, Any] = {}
    for each in status.details:
        for kind in (BadRequest, ErrorInfo, RetryInfo):
            if each.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                each.Unpack(found[kind])
    assert len(found) == len(status.details)
    return found


async def unary(run: Running, how: str) -> None:
    await run.prefetch(how)


async def client_stream(run: Running, how: str) -> None:
    header = trainer_pb2.TrainingSetHeader(class_word=how)
    await run.trainer.UploadTrainingSet(iter([trainer_pb2.UploadTrainingSetRequest(header=header)]), timeout=10)


async def server_stream(run: Running, how: str) -> None:
    async for _ in run.generator.Generate(generator_pb2.GenerateRequest(prompt=how, count=2), timeout=10):
        pass


async def bidirectional(run: Running, how: str) -> None:
    request = generator_pb2.GenerateManyRequest(key="fail", request=generator_pb2.GenerateRequest(prompt=how))
    async for _ in run.generator.GenerateMany(iter([request]), timeout=10):
        pass


KINDS = [unary, client_stream, server_stream, bidirectional]
LABELS = {
    unary: {"grpc_type": "UNARY", "grpc_service": GENERATOR, "grpc_method": "PrefetchConcept"},
    client_stream: {"grpc_type": "CLIENT_STREAM", "grpc_service": TRAINER, "grpc_method": "UploadTrainingSet"},
    server_stream: {"grpc_type": "SERVER_STREAM", "grpc_service": GENERATOR, "grpc_method": "Generate"},
    bidirectional: {"grpc_type": "BIDI_STREAM", "grpc_service": GENERATOR, "grpc_method": "GenerateMany"},
}
