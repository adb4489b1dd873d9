"""Traces and exemplars where OpenTelemetry is switched on, and nothing at all where it is not."""

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from detex_core.errors import FailedPreconditionError
from detex_core.opentelemetry_tracing import OpenTelemetryTracing
from detex_core.tracing import Tracing
from detex_core.tracing_switch import open_tracing, tracing_is_on
from detex_generator.generator import Generator
from detex_protos.v1.generator_pb2 import GenerateManyRequest, GenerateRequest
from tests.generator.running_generator import (
    TIMEOUT_SECONDS,
    RunningGenerator,
    generator_settings,
    images_of,
    refusal_of,
    running,
    wait_until,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CALL = "detex.v1.GeneratorService/Generate"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def traced(
    model_folders: dict[str, Path], store_folder: Path, concepts: object, exporter: InMemorySpanExporter
) -> Iterator[RunningGenerator]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = generator_settings({"tiny": model_folders["tiny"]}, store_folder, metrics_address="127.0.0.1:0")
    with running(settings, tracing=OpenTelemetryTracing(provider)) as started:
        yield started


def _call(generator: RunningGenerator, *, sampled: bool = True, **fields: object) -> "grpc.CallIterator[object]":
    flags = "01" if sampled else "00"
    metadata = [("traceparent", f"00-{TRACE}-{PARENT}-{flags}"), ("detex-tenant", "default")]
    return generator.stub.Generate(GenerateRequest(**fields), timeout=TIMEOUT_SECONDS, metadata=metadata)


def _spans(exporter: InMemorySpanExporter, last: str) -> dict[str, list[ReadableSpan]]:
    """All spans by name, once that of a call has ended."""
    wait_until(lambda: any(span.name == last for span in exporter.get_finished_spans()))
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def test_a_request_tells_where_its_time_went(traced: RunningGenerator, exporter: InMemorySpanExporter) -> None:
    exporter.clear()
    assert len(images_of(_call(traced, prompt="[my-mug] on a table", steps=3, count=2))) == 2
    spans = _spans(exporter, CALL)
    assert {name: len(found) for name, found in spans.items() if name != "load"} == {
        CALL: 1,
        "request": 1,
        "check": 1,
        "encode": 2,
        "queue": 2,
        "denoise": 2,
        "decode": 2,
    }
    assert {format_trace_id(span.context.trace_id) for found in spans.values() for span in found} == {TRACE}
    (call,), (request,) = spans[CALL], spans["request"]
    assert call.parent is not None
    assert format_span_id(call.parent.span_id) == PARENT
    assert request.parent is not None
    assert request.parent.span_id == call.context.span_id
    assert request.attributes is not None
    assert request.attributes["detex.images"] == 2
    assert request.attributes["rpc.grpc.status"] == "OK"
    for name in ("check", "queue", "denoise", "decode"):
        for span in spans[name]:
            assert span.parent is not None
            assert span.parent.span_id == request.context.span_id
            assert span.start_time is not None
            assert span.end_time is not None
            assert span.end_time > span.start_time
    assert [span.attributes["detex.steps"] for span in spans["denoise"] if span.attributes] == [3, 3]


def test_what_is_refused_and_what_fails_is_told(traced: RunningGenerator, exporter: InMemorySpanExporter) -> None:
    exporter.clear()
    assert refusal_of(_call(traced, prompt="[nobody]")).code == grpc.StatusCode.NOT_FOUND
    spans = _spans(exporter, CALL)
    for name in (CALL, "request"):
        attributes = spans[name][0].attributes
        assert attributes is not None
        assert attributes["rpc.grpc.status"] == "NOT_FOUND"
        assert spans[name][0].status.status_code is StatusCode.UNSET  # the caller's fault, not the server's


def test_requests_of_a_stream_have_spans_of_their_own(traced: RunningGenerator, exporter: InMemorySpanExporter) -> None:
    exporter.clear()
    requests = [
        GenerateManyRequest(key=str(number), request=GenerateRequest(prompt="a mug", steps=1)) for number in range(3)
    ]
    assert len(list(traced.stub.GenerateMany(iter(requests), timeout=TIMEOUT_SECONDS))) >= 3
    spans = _spans(exporter, "detex.v1.GeneratorService/GenerateMany")
    (call,) = spans["detex.v1.GeneratorService/GenerateMany"]
    assert len(spans["request"]) == 3
    assert {span.context.trace_id for span in spans["request"]} == {call.context.trace_id}


def test_measurements_carry_the_trace(traced: RunningGenerator, exporter: InMemorySpanExporter) -> None:
    exporter.clear()
    images_of(_call(traced, prompt="[my-mug] in the snow", steps=2))
    _spans(exporter, CALL)
    url = f"http://{traced.generator.server.metrics_address}/metrics"
    with urlopen(Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})) as response:
        text = response.read().decode()
    for name in (
        "detex_generator_request_seconds_bucket",
        "detex_generator_queue_wait_seconds_bucket",
        "detex_generator_stage_seconds_bucket",
        "grpc_server_handling_seconds_bucket",
    ):
        assert re.search(rf"^{name}{{.*}} .* # {{.*trace_id=\"{TRACE}\"", text, re.MULTILINE), name
    with urlopen(url) as response:
        assert TRACE not in response.read().decode()  # the older format has no exemplars


def test_a_trace_that_is_not_sampled_leaves_no_exemplar(
    traced: RunningGenerator, exporter: InMemorySpanExporter
) -> None:
    span = OpenTelemetryTracing(TracerProvider(shutdown_on_exit=False)).begin_call(
        CALL, [("traceparent", f"00-{TRACE}-{PARENT}-00")]
    )
    assert (span.trace_id, span.exemplar) == ("", None)
    exporter.clear()
    assert len(images_of(_call(traced, sampled=False, prompt="a mug", steps=1))) == 1
    assert not exporter.get_finished_spans()


def test_the_log_of_a_request_names_its_trace(
    traced: RunningGenerator, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    exporter.clear()
    with caplog.at_level("INFO"):
        images_of(_call(traced, prompt="a mug", steps=1))
        _spans(exporter, CALL)
    ended = [record for record in caplog.records if record.getMessage() == "request ended"]
    assert [getattr(record, "trace_id", None) for record in ended] == [TRACE]


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SERVICE_NAME": "detex"}, False),
    ],
)
def test_it_is_off_unless_an_endpoint_is_named(environment: dict[str, str], on: bool) -> None:
    assert tracing_is_on(environment) is on


def test_without_an_endpoint_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    tracing = open_tracing("test")
    assert type(tracing) is Tracing
    span = tracing.begin_call(CALL, [("traceparent", f"00-{TRACE}-{PARENT}-01")]).begin("request")
    span.record("check", 1.0)
    span.end()
    assert (span.trace_id, span.exemplar) == ("", None)


def test_an_unknown_protocol_ends_the_service(
    monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, Path], store_folder: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")

    async def make() -> None:
        Generator(generator_settings(model_folders, store_folder))

    with pytest.raises(FailedPreconditionError, match="OTEL_EXPORTER_OTLP_PROTOCOL: must be grpc, got 'http/json'"):
        asyncio.run(make())


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.names: list[str] = []
        self.services: set[str] = set()
        self.arrived = threading.Event()

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: object) -> object:
        for resource in request.resource_spans:
            attributes = resource.resource.attributes
            self.services |= {each.value.string_value for each in attributes if each.key == "service.name"}
            self.names += [span.name for scope in resource.scope_spans for span in scope.spans]
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()


def test_spans_arrive_at_the_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = _Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    tracing = open_tracing("detex-generator")
    span = tracing.begin_call(CALL, [])
    span.record("queue", 0.25)
    span.end()
    tracing.close()
    assert collector.arrived.wait(TIMEOUT_SECONDS)
    server.stop(None).wait()
    assert sorted(collector.names) == [CALL, "queue"]
    assert collector.services == {"detex-generator"}
