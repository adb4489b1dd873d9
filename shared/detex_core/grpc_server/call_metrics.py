"""Metrics of calls, named as the gRPC ecosystem names them."""

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pool
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from detex_core.metrics import CALL_SECONDS_BUCKETS

_METHOD = ("grpc_type", "grpc_service", "grpc_method")
# By whether the client streams and whether the server does.
_KINDS = {
    (False, False): "UNARY",
    (True, False): "CLIENT_STREAM",
    (False, True): "SERVER_STREAM",
    (True, True): "BIDI_STREAM",
}


class CallMetrics:
    """Counts and times calls by kind (`UNARY`, `CLIENT_STREAM`, `SERVER_STREAM`, `BIDI_STREAM`), service and method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._started = Counter("grpc_server_started_total", "Calls started on the server.", _METHOD, registry=registry)
        self._handled = Counter(
            "grpc_server_handled_total",
            "Calls completed on the server, by status code.",
            (*_METHOD, "grpc_code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Duration of a call on the server.",
            _METHOD,
            buckets=CALL_SECONDS_BUCKETS,
            registry=registry,
        )
        self._running = Gauge("grpc_server_running_calls", "Calls currently running.", _METHOD, registry=registry)

    def serves(self, services: Iterable[str]) -> None:
        """Begin the counts of all methods of these services at 0, so that `increase()` sees the first call.

        Args:
            services: Full names; what the process has no descriptor of is left out.
        """
        for service in services:
            try:
                methods = descriptor_pool.Default().FindServiceByName(service).methods
            except KeyError:
                continue
            for method in methods:
                labels = (_KINDS[method.client_streaming, method.server_streaming], service, method.name)
                self._started.labels(*labels)
                self._running.labels(*labels)
                for code in grpc.StatusCode:
                    self._handled.labels(*labels, code.name)

    def begin(self, kind: str, service: str, method: str) -> None:
        """A call has begun."""
        self._started.labels(kind, service, method).inc()
        self._running.labels(kind, service, method).inc()

    def end(
        self, kind: str, service: str, method: str, code: str, seconds: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """A call has ended with a status code, for example `OK`; the exemplar ties its time to its trace."""
        self._running.labels(kind, service, method).dec()
        self._handled.labels(kind, service, method, code).inc()
        self._seconds.labels(kind, service, method).observe(seconds, exemplar)
