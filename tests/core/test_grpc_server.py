"""The gRPC server as callers see it: errors, tenants, health, reflection, limits, deadlines, metrics."""

import asyncio
import logging
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from detex_core.errors import FailedPreconditionError, UnavailableError
from detex_core.grpc_server import Server
from detex_core.metrics import new_registry
from detex_core.settings import ServiceSettings
from detex_protos.v1 import common_pb2, generator_pb2, generator_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

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
    check: Callable[[], Awaitable[None]] = always_ready, interceptors: Any = (), **changes: Any
) -> AsyncIterator[Running]:
    handlers = SampleGenerator()
    registry = new_registry("sample")
    server = Server(settings(**changes), sample_services(handlers, check), registry, interceptors=interceptors)
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


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_input_of_every_kind_of_call(kind: Callable[[Running, str], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with running() as run:
            await kind(run, "fine")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await kind(run, "invalid")
            error = raised.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == "reference.name: given 'x y'; accepted is a to z."
            found = details(error)
            assert (found[ErrorInfo].domain, found[ErrorInfo].reason) == ("detex", "INVALID_INPUT")
            (violation,) = found[BadRequest].field_violations
            assert violation.field == "reference.name"
            assert violation.description == "Given 'x y'; accepted is a to z."
            assert RetryInfo not in found
            labels = LABELS[kind]
            assert run.value("grpc_server_started_total", **labels) == 2
            assert run.value("grpc_server_handled_total", **labels, grpc_code="OK") == 1
            assert run.value("grpc_server_handled_total", **labels, grpc_code="INVALID_ARGUMENT") == 1
            assert run.value("grpc_server_handling_seconds_count", **labels) == 2
            assert run.value("grpc_server_running_calls", **labels) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["defect", "validation"])
def test_defects_of_every_kind_of_call_keep_their_text(
    kind: Callable[[Running, str], Awaitable[None]], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running() as run:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await kind(run, how)
            error = raised.value
            assert error.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in str(error)
            assert "secret" not in str(error.trailing_metadata())
            found = details(error)
            assert found[ErrorInfo].reason == "INTERNAL"
            incident = found[ErrorInfo].metadata["incident"]
            assert incident in (error.details() or "")
            (record,) = [each for each in caplog.records if incident in each.getMessage() and each.exc_info]
            assert "secret of the house" in str(record.exc_info[1])  # type: ignore[index]
            await kind(run, "fine")

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("how", "code", "reason", "retry_seconds"),
    [
        ("not_found", grpc.StatusCode.NOT_FOUND, "CONCEPT_NOT_FOUND", None),
        ("already_exists", grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS", None),
        ("failed_precondition", grpc.StatusCode.FAILED_PRECONDITION, "FAILED_PRECONDITION", None),
        ("permission_denied", grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", None),
        ("resource_exhausted", grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", 2.5),
        ("unavailable", grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 1.0),
        ("data_loss", grpc.StatusCode.DATA_LOSS, "DATA_LOSS", None),
        ("aborted", grpc.StatusCode.ABORTED, "ABORTED", None),
        ("base", grpc.StatusCode.INTERNAL, "INTERNAL", None),
    ],
)
def test_every_error_of_the_domain_has_its_status(
    how: str, code: grpc.StatusCode, reason: str, retry_seconds: float | None
) -> None:
    async def scenario() -> None:
        async with running() as run:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.prefetch(how)
            assert raised.value.code() is code
            found = details(raised.value)
            assert found[ErrorInfo].reason == reason
            assert BadRequest not in found
            retry = found.get(RetryInfo)
            assert (retry.retry_delay.ToMilliseconds() / 1_000 if retry else None) == retry_seconds

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["huge", "huge_ascii", "many"])
def test_several_violations_arrive_and_huge_ones_are_cut_to_fit(how: str) -> None:
    async def scenario() -> None:
        async with running() as run:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.prefetch("two")
            violations = details(raised.value)[BadRequest].field_violations
            assert [violation.field for violation in violations] == ["steps", "count"]
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.prefetch(how)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            violations = details(raised.value)[BadRequest].field_violations
            assert 1 < len(violations) < 100
            assert all(violation.description.startswith("Given ") for violation in violations)

    asyncio.run(scenario())


def test_messages_before_an_error_arrive() -> None:
    async def scenario() -> None:
        async with running() as run:
            call = run.generator.Generate(generator_pb2.GenerateRequest(prompt="data_loss", count=3), timeout=10)
            assert [(await call.read()).progress.step for _ in range(3)] == [1, 2, 3]
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call.read()
            assert raised.value.code() is grpc.StatusCode.DATA_LOSS

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_is_cancelled_from_inside_does_not_leave_its_caller_waiting(
    kind: Callable[[Running, str], Awaitable[None]],
) -> None:
    async def scenario() -> None:
        async with running() as run:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await kind(run, "cancelled")
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert RetryInfo in details(raised.value)
            await kind(run, "fine")

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["abort", "set_code"])
def test_what_a_handler_says_itself_stands(how: str) -> None:
    async def scenario() -> None:
        async with running() as run:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.prefetch(how)
            assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
            labels = LABELS[unary]
            assert run.value("grpc_server_handled_total", **labels, grpc_code="OUT_OF_RANGE") == 1

    asyncio.run(scenario())


def test_one_request_of_a_stream_fails_and_the_others_go_on() -> None:
    async def scenario() -> None:
        prompts = ["fine", "two", "unavailable", "defect", "huge", "fine"]
        requests = [
            generator_pb2.GenerateManyRequest(key=str(i), request=generator_pb2.GenerateRequest(prompt=prompt))
            for i, prompt in enumerate(prompts)
        ]
        async with running() as run:
            responses = [each async for each in run.generator.GenerateMany(iter(requests), timeout=10)]
        assert [each.key for each in responses] == ["0", "1", "2", "3", "4", "5"]
        kinds = [each.WhichOneof("event") for each in responses]
        assert kinds == ["done", "error", "error", "error", "error", "done"]
        two, unavailable, defect = (each.error for each in responses[1:4])
        assert (two.code, two.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_INPUT")
        assert [(each.field, each.description) for each in two.violations] == [
            ("steps", "Given 0; accepted is 1 to 500."),
            ("count", "Given 65; accepted is 1 to 64."),
        ]
        assert not two.HasField("retry_delay")
        assert unavailable.retry_delay.seconds == 1
        assert (defect.code, defect.reason) == (grpc.StatusCode.INTERNAL.value[0], "INTERNAL")
        assert "secret" not in str(defect)

    asyncio.run(scenario())


def test_the_tenant_comes_from_the_metadata() -> None:
    async def scenario() -> None:
        async with running() as run:
            for how in ("plain", "thread"):
                assert (await run.prefetch(how)).concept.base_model == "default"
                metadata = (("detex-tenant", "acme-2"),)
                assert (await run.prefetch(how, metadata=metadata)).concept.base_model == "acme-2"
            answers = await asyncio.gather(
                *(run.prefetch("thread", metadata=(("detex-tenant", f"t{i}"),)) for i in range(20))
            )
            assert [answer.concept.base_model for answer in answers] == [f"t{i}" for i in range(20)]
            upload = await run.trainer.UploadTrainingSet(
                iter([trainer_pb2.UploadTrainingSetRequest(chunk=b"abc")]), metadata=(("detex-tenant", "acme"),)
            )
            assert upload.training_set.training_set_id == "acme/3"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "metadata",
    [
        (("detex-tenant", ""),),
        (("detex-tenant", "Acme"),),
        (("detex-tenant", "../acme"),),
        (("detex-tenant", "a" * 64),),
        (("detex-tenant", "acme"), ("detex-tenant", "other")),
    ],
)
def test_malformed_tenants_are_invalid_input(metadata: tuple[tuple[str, str], ...]) -> None:
    async def scenario() -> None:
        async with running() as run:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.prefetch("plain", metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            (violation,) = details(raised.value)[BadRequest].field_violations
            assert violation.field == "detex-tenant"

    asyncio.run(scenario())


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
            with pytest.raises(FailedPreconditionError, match=f"{field}: given {taken}"):
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
