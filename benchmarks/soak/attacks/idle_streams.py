"""Streams that are opened and say nothing: of requests, of health, of reflection."""

from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from benchmarks.soak.attacks.attacker import PATIENCE_SECONDS, Attacker

_STREAMS = 200


async def attack(attacker: Attacker) -> None:
    """Hundreds of each sort, to both services where both have them."""
    tenant = attacker.tenant
    options = tenant.options(PATIENCE_SECONDS)
    streams = [tenant.generator.GenerateMany(**options) for _ in range(_STREAMS)]
    channels: tuple[Any, ...] = (tenant.trainer_channel, tenant.generator_channel)
    for channel in channels:
        # The published types know the stubs of threads alone.
        health: Any = health_pb2_grpc.HealthStub(channel)
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        streams += [health.Watch(health_pb2.HealthCheckRequest(), **options) for _ in range(_STREAMS)]
        streams += [reflection.ServerReflectionInfo(**options) for _ in range(_STREAMS)]
    await attacker.together(*(attacker.read(stream) for stream in streams))
