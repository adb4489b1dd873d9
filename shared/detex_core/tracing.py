"""Traces of calls: what a service tells of where the time of a call went, where OpenTelemetry is switched on.

Off unless an endpoint is named by OpenTelemetry's own environment variables. All of the code uses `Span` and `Tracing`
as they are here, which do nothing; `detex_core.opentelemetry_tracing` has those that send.
"""

from collections.abc import Iterable
from contextvars import ContextVar

Attribute = str | int | float | bool


class Span:
    """A piece of work with a begin and an end; this one is told to nobody. Safe to use from several threads.

    Attributes:
        trace_id: 32 hex digits, for logs; empty where nothing is told.
        exemplar: Labels that tie a measurement in a histogram to the trace; None where nothing is told.
    """

    trace_id: str = ""
    exemplar: dict[str, str] | None = None

    def begin(self, name: str, **attributes: Attribute) -> "Span":
        """A span within this one, which the caller must end."""
        del name, attributes
        return self

    def record(self, name: str, seconds: float, **attributes: Attribute) -> None:
        """A span within this one that began so many seconds ago and ends now."""

    def end(self, outcome: str = "OK") -> None:
        """It ends, with the name of a gRPC status; further calls do nothing."""


class Tracing:
    """Where spans of calls come from; these are told to nobody."""

    def begin_call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Span:
        """The span of a call that is served.

        Args:
            method: Full name, for example `detex.v1.GeneratorService/Generate`.
            metadata: Of the call; `traceparent` and `tracestate` say what trace it belongs to.
        """
        del method, metadata
        return NO_SPAN

    def close(self) -> None:
        """Send what has not been sent; blocks for a few seconds at most."""


NO_SPAN = Span()
_span: ContextVar[Span] = ContextVar("detex_span", default=NO_SPAN)


def current_span() -> Span:
    """The span of the running call; outside of calls one that is told to nobody."""
    return _span.get()


def set_span(span: Span) -> None:
    """Make a span that of the running task until it ends; for servers, which run each call in its own task."""
    _span.set(span)
