"""Prometheus metrics over HTTP: /metrics, and /healthz and /readyz for probes."""

import contextlib
import platform
import socket
import threading
from collections.abc import Callable, Iterable
from threading import Thread
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from detex_core import __version__
from detex_core.errors import FailedPreconditionError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

# Seconds. From an answer out of memory to a training job's longest stream.
CALL_SECONDS_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10),
    *(15, 20, 30, 60, 120, 300, 1800),
)
# Seconds. One denoising step, one training step, one decode.
STEP_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Bytes. From a manifest to the weights of a whole UNet.
SIZE_BYTES_BUCKETS = tuple(float(4**power * 1024) for power in range(12))


MOST_CONNECTIONS = 16
"""To the server of metrics and probes at a time."""
READ_TIMEOUT_SECONDS = 5.0
"""Longest silence of a connection to it."""


def new_registry(service: str) -> CollectorRegistry:
    """A registry with what every service has: process, garbage collector, Python, and `detex_build_info`."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    build = Info("detex_build", "Version of detex that this process runs.", registry=registry)
    build.info({"service": service, "version": __version__, "python_version": platform.python_version()})
    return registry


class MetricsServer:
    """Serves a registry over HTTP from a thread of its own, until closed.

    Args:
        address: `host:port`; port 0 takes a free one.
        registry: What /metrics shows.
        is_ready: Whether /readyz answers 200 rather than 503.
        is_alive: Whether /healthz does.

    Raises:
        FailedPreconditionError: The address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        is_ready: Callable[[], bool] = lambda: True,
        is_alive: Callable[[], bool] = lambda: True,
    ) -> None:
        host, _, port = address.rpartition(":")
        self._metrics = make_wsgi_app(registry)
        self._is_ready = is_ready
        self._is_alive = is_alive
        try:
            self._server = make_server(host.strip("[]"), int(port), self._answer, _server_class(host), _SilentHandler)
        except (OSError, OverflowError) as error:
            raise FailedPreconditionError(
                f"metrics_address: cannot listen on {address} ({error}).", reason="ADDRESS_UNUSABLE"
            ) from error
        self.address = f"{host}:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; returns when the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        checks = {"/healthz": (self._is_alive, "stuck"), "/readyz": (self._is_ready, "not ready")}
        if path in checks:
            holds, otherwise = checks[path]
            status, text = ("200 OK", "ok\n") if holds() else ("503 Service Unavailable", f"{otherwise}\n")
        else:
            status, text = "404 Not Found", "/metrics, /healthz, /readyz\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]


def serve_metrics(
    address: str, registry: CollectorRegistry, is_ready: Callable[[], bool] = lambda: True
) -> MetricsServer:
    """Serve a registry at `address`; see MetricsServer."""
    return MetricsServer(address, registry, is_ready)


class _BoundedServer(ThreadingWSGIServer):
    """Few connections at a time: one that has not said what it wants gives way to a new one, the oldest first."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._connections = threading.Lock()
        self._asking: dict[Any, None] = {}  # in the order in which they came
        self._answered: set[Any] = set()
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections:
            is_full = len(self._asking) + len(self._answered) >= MOST_CONNECTIONS
            oldest = next(iter(self._asking), None) if is_full else None
            if oldest is not None:
                del self._asking[oldest]
                _break_off(oldest)
            elif is_full:
                _break_off(request)
            self._asking[request] = None
        super().process_request(request, client_address)

    def begin_answer(self, request: Any) -> None:
        """A connection has said what it wants, and is not to be broken off any more."""
        with self._connections:
            if request in self._asking:
                del self._asking[request]
                self._answered.add(request)

    def shutdown_request(self, request: Any) -> None:
        with self._connections:
            self._asking.pop(request, None)
            self._answered.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break off, or send what is no HTTP, are no news."""


class _SilentHandler(WSGIRequestHandler):
    timeout = READ_TIMEOUT_SECONDS

    def parse_request(self) -> bool:
        is_request = super().parse_request()
        if isinstance(self.server, _BoundedServer):
            self.server.begin_answer(self.request)
        return is_request

    def log_message(self, *_: Any) -> None:
        """Probes and scrapes are no news."""


def _break_off(connection: Any) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _server_class(host: str) -> type[WSGIServer]:
    class Server(_BoundedServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server
