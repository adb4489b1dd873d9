"""Traces by OpenTelemetry; needs the extra `tracing`.

The environment variables of its SDK say where they go, which calls are sampled and how they are sent off.
"""

import os
import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from detex_core import __version__
from detex_core.channel import direct_options
from detex_core.errors import FailedPreconditionError
from detex_core.tracing import Attribute, Span, Tracing

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SHUTDOWN_MILLISECONDS = 3000
# Statuses that are no fault of the server, by OpenTelemetry's conventions for gRPC.
_NO_FAULTS = frozenset(
    {
        "OK",
        "CANCELLED",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAUTHENTICATED",
    }
)


class OpenTelemetrySpan(Span):
    """A span that is sent."""

    def __init__(self, tracer: Tracer, span: SdkSpan) -> None:
        """Tell of what `span` is; spans within it come from `tracer`."""
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span)
        identity = span.get_span_context()
        if identity.trace_flags.sampled:
            self.trace_id = format_trace_id(identity.trace_id)
            self.exemplar = {"trace_id": self.trace_id, "span_id": format_span_id(identity.span_id)}

    def begin(self, name: str, **attributes: Attribute) -> Span:
        """A span within this one, which the caller must end."""
        return OpenTelemetrySpan(
            self._tracer, self._tracer.start_span(name, self._context, attributes=_named(attributes))
        )

    def record(self, name: str, seconds: float, **attributes: Attribute) -> None:
        """A span within this one that began so many seconds ago and ends now."""
        end = time.time_ns()
        span = self._tracer.start_span(
            name, self._context, attributes=_named(attributes), start_time=end - round(seconds * 1e9)
        )
        span.end(end)

    def end(self, outcome: str = "OK") -> None:
        """It ends, with the name of a gRPC status."""
        if self._span.is_recording():
            self._span.set_attribute("rpc.grpc.status", outcome)
            if outcome not in _NO_FAULTS:
                self._span.set_status(Status(StatusCode.ERROR, outcome))
            self._span.end()


class OpenTelemetryTracing(Tracing):
    """Tracing that sends to whatever a provider exports to."""

    def __init__(self, provider: TracerProvider) -> None:
        """Make spans by `provider`, which is shut down in the end."""
        self._provider = provider
        self._tracer = provider.get_tracer("detex", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin_call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Span:
        """The span of a call that is served; within the trace that its metadata names, else the first of a new one."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        service, _, name = method.rpartition("/")
        span = self._tracer.start_span(
            method,
            self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        return OpenTelemetrySpan(self._tracer, span)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.force_flush(_SHUTDOWN_MILLISECONDS)
        self._provider.shutdown()


def exporting_tracing(service: str) -> OpenTelemetryTracing:
    """Tracing that sends by OTLP over gRPC, in batches from a thread of its own.

    Args:
        service: Name of the service, where OTEL_SERVICE_NAME gives no other.

    Raises:
        FailedPreconditionError: Another protocol is asked for.
    """
    asked = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "grpc")
    if asked != "grpc":
        raise FailedPreconditionError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: must be grpc, got {asked!r}.", reason="TRACING_UNAVAILABLE"
        )
    attributes = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        attributes["service.name"] = service
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(channel_options=_channel_options())))
    return OpenTelemetryTracing(provider)


def _channel_options() -> Any:  # the exporter's own type knows one option of texts only
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    return tuple(direct_options(endpoint)) or None


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"detex.{name}": value for name, value in attributes.items()}
