"""Errors and tenants as callers of the gRPC server see them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from detex_protos.v1 import generator_pb2, trainer_pb2
from tests.core.running_server import (
    KINDS,
    LABELS,
    Running,
    details,
    running,
    unary,
)


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_input_of_every_kind_of_call(kind: Callable[[Running, str], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with running() as run:
            await kind(run, "fine")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await kind(run, "invalid")
            error = raised.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == "reference.name: must be a to z, got 'x y'."
            found = details(error)
            assert (found[ErrorInfo].domain, found[ErrorInfo].reason) == ("detex", "INVALID_INPUT")
            (violation,) = found[BadRequest].field_violations
            assert violation.field == "reference.name"
            assert violation.description == "Must be a to z, got 'x y'."
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
            assert 1 < len(violations) < 120
            assert all(violation.description.startswith("Must be ") for violation in violations)

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
            await run.server.drain()  # gRPC sends the status within the handler, before the call has ended here
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
            ("steps", "Must be 1 to 500, got 0."),
            ("count", "Must be 1 to 64, got 65."),
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
