"""The asyncio gRPC server that both services run in."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, Gauge

from detex_core.access.opening import open_audit_log, open_certificate, open_gate
from detex_core.channel import server_options
from detex_core.errors import FailedPreconditionError
from detex_core.grpc_server.call_metrics import CallMetrics
from detex_core.grpc_server.heartbeat import Heartbeat
from detex_core.grpc_server.interceptor import CallInterceptor
from detex_core.grpc_server.readiness import Readiness
from detex_core.grpc_server.service import Service
from detex_core.memory_budget import MemoryBudget, message_budget
from detex_core.metrics import MetricsServer
from detex_core.settings import ServiceSettings
from detex_core.tracing import Tracing

logger = logging.getLogger(__name__)


class Server:
    """Services with health, reflection, metrics, error mapping, tenants and an orderly end.

    Must be constructed and used within one event loop.

    Args:
        settings: Addresses, limits, grace.
        services: What to serve.
        registry: Where the metrics of calls go and what /metrics shows; see `detex_core.metrics.new_registry`.
        interceptors: Run inside the server's own, so that what they raise is mapped and counted.
        tracing: Where the spans of calls go; nowhere by default.
        messages: Memory for large messages; of its own by default.

    Attributes:
        address: Host and port that the server listens on, once started.
        metrics_address: The same of the HTTP port; empty where it is switched off.
        draining: Set when the server has been asked to stop. Streams that would last longer than the grace may watch it
            and end themselves.

    Raises:
        FailedPreconditionError: Access policy, certificate or audit log cannot be used, or the server would serve a
            network without them and was not told that this is meant.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        services: Sequence[Service],
        registry: CollectorRegistry,
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        tracing: Tracing | None = None,
        messages: MemoryBudget | None = None,
    ) -> None:
        self.address = ""
        self.metrics_address = ""
        self.draining = asyncio.Event()
        self._settings = settings
        self._registry = registry
        self._hurry = asyncio.Event()
        metrics = CallMetrics(registry)
        metrics.serves(service.name for service in services)
        self._audit = open_audit_log(settings)
        self._certificate = open_certificate(settings)
        if self._certificate is not None:
            expiry = Gauge(
                "detex_certificate_expiry_timestamp_seconds",
                "When the certificate of the gRPC port expires, in seconds since 1970.",
                registry=registry,
            )
            certificate = self._certificate
            expiry.set_function(lambda: certificate.end_time.timestamp())
        self._calls = CallInterceptor(
            metrics,
            tracing or Tracing(),
            messages or message_budget(settings),
            max_calls_per_tenant=settings.max_calls_per_tenant,
            gate=open_gate(settings),
            audit=self._audit,
        )
        self._heartbeat = Heartbeat(settings.liveness_seconds)
        self._beat: asyncio.Task[None] | None = None
        self._readiness = Readiness(services, settings.readiness_interval_seconds, registry)
        self._watch: asyncio.Task[None] | None = None
        self._metrics: MetricsServer | None = None
        self._server = grpc.aio.server(
            interceptors=(self._calls, *interceptors), options=server_options(settings.max_message_bytes)
        )
        for service in services:
            service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._readiness.servicer, self._server)
        names = [service.name for service in services]
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self) -> None:
        """Begin to listen; every service is NOT_SERVING until its first check succeeds.

        Raises:
            FailedPreconditionError: An address cannot be listened on.
        """
        listen_address = self._settings.listen_address
        try:
            if self._certificate is None:
                port = self._server.add_insecure_port(listen_address)
            else:
                port = self._server.add_secure_port(listen_address, self._certificate.credentials())
        except RuntimeError as error:
            raise FailedPreconditionError(
                f"listen_address: cannot listen on {listen_address}.", reason="ADDRESS_UNUSABLE"
            ) from error
        self._beat = asyncio.create_task(self._heartbeat.run(), name="heartbeat")
        await self._readiness.open()
        if self._settings.metrics_address:
            self._metrics = MetricsServer(
                self._settings.metrics_address,
                self._registry,
                is_ready=lambda: self._readiness.is_ready and self._heartbeat.is_alive,
                is_alive=lambda: self._heartbeat.is_alive,
            )
            self.metrics_address = self._metrics.address
        await self._server.start()
        self.address = f"{listen_address.rpartition(':')[0]}:{port}"
        self._watch = asyncio.create_task(self._readiness.watch(), name="readiness")
        logger.info("listening", extra={"address": self.address, "metrics_address": self.metrics_address})

    def request_drain(self) -> None:
        """Ask the server to end in order; asked a second time, it ends at once."""
        if self.draining.is_set():
            self._hurry.set()
        self.draining.set()

    async def run(self, last_work: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serve until SIGTERM or SIGINT (a second one ends the server at once) or `request_drain`, then drain.

        Args:
            last_work: Awaited after the drain while /metrics is still served, so that what it counts is scraped.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.request_drain)
        try:
            if not self.address:
                await self.start()
            await self.draining.wait()
        finally:
            await self._stop_calls()
            if last_work is not None:
                await last_work()
            await self._close_metrics()
            for number in signals:
                loop.remove_signal_handler(number)

    async def drain(self) -> None:
        """End in order: NOT_SERVING at once, no new calls after the delay, running calls finish within the grace."""
        await self._stop_calls()
        await self._close_metrics()

    async def _stop_calls(self) -> None:
        self.draining.set()
        logger.info("draining")
        await self._readiness.close()
        if self._watch is not None:
            self._watch.cancel()
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((hurry,), timeout=self._settings.drain_delay_seconds)
        stop = asyncio.create_task(self._server.stop(None if hurry.done() else self._settings.drain_grace_seconds))
        idle = asyncio.create_task(self._calls.wait_until_idle())
        await asyncio.wait((stop, idle, hurry), return_when=asyncio.FIRST_COMPLETED)
        self._calls.end_other_calls()
        await asyncio.wait((stop, hurry), return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            await self._server.stop(None)
        await stop
        hurry.cancel()
        idle.cancel()

    async def _close_metrics(self) -> None:
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
            self._metrics = None
        if self._beat is not None:
            self._beat.cancel()
        if self._audit is not None:
            self._audit.close()
            self._audit = None
        logger.info("ended")


async def run_server(
    settings: ServiceSettings,
    services: Sequence[Service],
    registry: CollectorRegistry,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> None:
    """Serve until asked to stop; see Server. The caller opens what the services hold before, and closes it after."""
    await Server(settings, services, registry, interceptors=interceptors).run()
