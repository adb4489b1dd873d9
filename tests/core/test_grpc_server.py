"""The gRPC server as callers see it: health, reflection, limits, deadlines, metrics."""

import asyncio
import logging
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client.parser import text_string_to_metric_families

from detex_core.errors import FailedPreconditionError, UnavailableError
from detex_core.grpc_server import Server
from detex_core.metrics import new_registry
from detex_protos.v1 import generator_pb2, trainer_pb2
from tests.core.running_server import (
    LABELS,
    NOT_SERVING,
    SERVING,
    Running,
    details,
    running,
    server_stream,
    settings,
)
from tests.core.sample_services import GENERATOR, TRAINER, SampleGenerator, sample_services


async def status(run: Running, service: str) -> int:
    answer = await run.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    return int(answer.status)


async def http_code(run: Running, path: str) -> int:
    def get() -> int:
        try:
            with urllib.request.urlopen(f"http://{run.server.metrics_address}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    return await asyncio.to_thread(get)


def test_health_follows_readiness() -> None:
    async def scenario() -> None:
        problem: Exception | None = UnavailableError("the base model is being loaded")

        async def check() -> None:
            if problem:
                raise problem

        async with running(check) as run:
            watch = run.health.Watch(health_pb2.HealthCheckRequest(service=GENERATOR), timeout=20)
            assert (await watch.read()).status == NOT_SERVING
            assert await status(run, "") == NOT_SERVING
            assert await http_code(run, "/readyz") == 503
            for problem in (None, RuntimeError("a defect in the check"), None, UnavailableError("gone"), None):
                expected = NOT_SERVING if problem else SERVING
                assert (await watch.read()).status == expected
                assert await status(run, GENERATOR) == expected
                assert await status(run, TRAINER) == SERVING
                while await status(run, "") != expected:
                    await asyncio.sleep(0)
                assert await http_code(run, "/readyz") == (503 if problem else 200)
                assert await http_code(run, "/healthz") == 200
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await status(run, "detex.v1.Other")
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(scenario())


def test_reflection_describes_the_services() -> None:
    async def scenario() -> None:
        async with running() as run:
            requests = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=GENERATOR),
            ]
            listed, described = [each async for each in run.reflection.ServerReflectionInfo(iter(requests), timeout=10)]
            names = {service.name for service in listed.list_services_response.service}
            assert names >= {GENERATOR, TRAINER, "grpc.health.v1.Health"}
            assert described.file_descriptor_response.file_descriptor_proto

    asyncio.run(scenario())


def test_messages_that_are_too_large_are_refused_and_the_server_goes_on() -> None:
    async def scenario() -> None:
        async with running(max_message_bytes=64 * 1024) as run:
            for size, fits in ((60_000, True), (70_000, False), (60_000, True)):
                upload = iter([trainer_pb2.UploadTrainingSetRequest(chunk=bytes(size))])
                if fits:
                    await run.trainer.UploadTrainingSet(upload, timeout=10)
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await run.trainer.UploadTrainingSet(upload, timeout=10)
                assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(scenario())


def test_calls_of_one_tenant_that_run_at_a_time_are_bounded_and_others_have_theirs() -> None:
    async def scenario() -> None:
        async with running(max_calls_per_tenant=2) as run:
            waits = generator_pb2.GenerateRequest(prompt="wait", count=1)
            greedy = {"metadata": (("detex-tenant", "greedy"),), "timeout": 60}
            held = [run.generator.Generate(waits, **greedy) for _ in range(2)]
            for call in held:
                await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.generator.Generate(waits, **greedy).read()
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            told = details(raised.value)
            assert told[ErrorInfo].reason == "TOO_MANY_CALLS"
            assert told[RetryInfo].retry_delay.ToTimedelta().total_seconds() > 0
            assert await status(run, "") in (SERVING, NOT_SERVING)  # who asks for health is nobody's tenant
            other = run.generator.Generate(waits, metadata=(("detex-tenant", "other"),), timeout=60)
            await other.read()
            held[0].cancel()
            async with asyncio.timeout(60):
                while True:
                    try:
                        await run.generator.Generate(waits, **greedy).read()
                        break
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0)

    asyncio.run(scenario())


def test_unknown_methods_are_unimplemented() -> None:
    async def scenario() -> None:
        async with running() as run, grpc.aio.insecure_channel(run.server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/detex.v1.GeneratorService/Nothing")(b"", timeout=10)
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scenario())


async def counted(run: Running, code: str) -> None:
    """Return when a server stream has ended with that code; the server may learn of it after the caller."""
    async with asyncio.timeout(10):
        while run.value("grpc_server_handled_total", **LABELS[server_stream], grpc_code=code) != 1:
            await asyncio.sleep(0.005)


def test_a_deadline_ends_the_handler() -> None:
    async def scenario() -> None:
        async with running() as run:
            call = run.generator.Generate(generator_pb2.GenerateRequest(prompt="wait", count=1), timeout=0.2)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for _ in call:
                    pass
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            async with asyncio.timeout(10):
                await run.handlers.ended.wait()
            await counted(run, "DEADLINE_EXCEEDED")

    asyncio.run(scenario())


def test_a_caller_who_goes_ends_the_handler() -> None:
    async def scenario() -> None:
        async with running() as run:
            call = run.generator.Generate(generator_pb2.GenerateRequest(prompt="wait", count=1), timeout=20)
            await call.read()
            assert not run.handlers.ended.is_set()
            call.cancel()
            async with asyncio.timeout(10):
                await run.handlers.ended.wait()
            await counted(run, "CANCELLED")

    asyncio.run(scenario())


def test_a_caller_who_goes_while_messages_stream_ends_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running() as run:
            call = run.generator.Generate(generator_pb2.GenerateRequest(count=2**31), timeout=20)
            await call.read()
            call.cancel()
            async with asyncio.timeout(10):
                await run.handlers.ended.wait()
            await counted(run, "CANCELLED")

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert [record for record in caplog.records if record.name.startswith("detex")] == []


def test_a_message_that_cannot_be_written_counts_as_the_callers_leaving() -> None:
    """What gRPC raises where a message is on its way when the caller goes, before the context knows of it."""

    class Gone(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            async def write(request: Any, context: Any) -> AsyncIterator[bytes]:
                yield b""
                raise grpc.aio.InternalError('Failed "execute_batch"')

            return grpc.unary_stream_rpc_method_handler(write)

    async def scenario() -> None:
        async with running(interceptors=(Gone(),)) as run:
            with pytest.raises(grpc.aio.AioRpcError):
                await server_stream(run, "anything")
            await counted(run, "CANCELLED")

    asyncio.run(scenario())


def test_metrics_over_http() -> None:
    async def scenario() -> str:
        async with running() as run:
            await run.prefetch("plain")

            def get() -> str:
                with urllib.request.urlopen(f"http://{run.server.metrics_address}/metrics", timeout=10) as answer:
                    return str(answer.read().decode())

            assert await http_code(run, "/nothing") == 404
            return await asyncio.to_thread(get)

    families = {family.name: family for family in text_string_to_metric_families(asyncio.run(scenario()))}
    assert families["grpc_server_handled"].type == "counter"
    assert families["grpc_server_handling_seconds"].type == "histogram"
    assert families["process_resident_memory_bytes"].samples[0].value > 0
    (build,) = families["detex_build_info"].samples
    assert build.labels["service"] == "sample"
    assert build.labels["version"]
    assert all(family.documentation for family in families.values())


def test_interceptors_of_services_may_refuse_calls() -> None:
    class OnlyAcme(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            if ("detex-tenant", "acme") in handler_call_details.invocation_metadata:
                return await continuation(handler_call_details)

            async def refuse(request: Any, context: Any) -> Any:
                raise UnavailableError("not you")

            return grpc.unary_unary_rpc_method_handler(refuse)

    async def scenario() -> None:
        async with running(interceptors=(OnlyAcme(),)) as run:
            await run.prefetch("plain", metadata=(("detex-tenant", "acme"),))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.prefetch("plain")
            assert details(raised.value)[ErrorInfo].domain == "detex"

    asyncio.run(scenario())


@pytest.mark.parametrize("field", ["listen_address", "metrics_address"])
def test_an_address_in_use_is_told_by_name(field: str) -> None:
    async def scenario() -> None:
        async with running() as run:
            taken = run.server.address if field == "listen_address" else run.server.metrics_address
            second = Server(settings(**{field: taken}), sample_services(SampleGenerator()), new_registry("sample"))
            with pytest.raises(FailedPreconditionError, match=f"{field}: cannot listen on {taken}"):
                await second.start()
            await second.drain()
            await run.prefetch("plain")

    asyncio.run(scenario())


def test_without_a_metrics_address_nothing_listens_there() -> None:
    async def scenario() -> None:
        async with running(metrics_address="") as run:
            assert run.server.metrics_address == ""
            await run.prefetch("plain")

    asyncio.run(scenario())
