"""Whether the services can serve: looks again and again, and tells the health service."""

import asyncio
import logging
from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio
from prometheus_client import CollectorRegistry, Gauge

from detex_core.errors import DetexError
from detex_core.grpc_server.service import Service

_CHECK_TIMEOUT_SECONDS = 15.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

logger = logging.getLogger(__name__)


class Readiness:
    """The state of each service, and of all together (under the empty name), in the standard health service.

    All begin as NOT_SERVING and follow the services' own checks from then on.
    """

    def __init__(self, services: Sequence[Service], interval_seconds: float, registry: CollectorRegistry) -> None:
        self.servicer = aio.HealthServicer()
        self._ready = readiness_gauge(registry)
        for service in services:
            self._ready.labels(service.name).set(0)
        self._services = services
        self._interval_seconds = interval_seconds
        self._reasons: dict[str, str | None] = {service.name: "not checked yet" for service in services}
        self._closed = False

    @property
    def is_ready(self) -> bool:
        """Whether every service can serve now."""
        return not self._closed and not any(self._reasons.values())

    async def open(self) -> None:
        """Report NOT_SERVING for all until the first look."""
        for name in ("", *self._reasons):
            await self.servicer.set(name, _NOT_SERVING)

    async def watch(self) -> None:
        """Look at all services, forever."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval_seconds)

    async def look(self) -> None:
        """Look at all services once."""
        reasons = await asyncio.gather(*(_reason(service) for service in self._services))
        if self._closed:
            return
        for service, reason in zip(self._services, reasons, strict=True):
            if reason != self._reasons[service.name]:
                level = logging.WARNING if reason else logging.INFO
                logger.log(level, "%s %s", service.name, f"is not ready: {reason}" if reason else "is ready")
            self._reasons[service.name] = reason
            self._ready.labels(service.name).set(0 if reason else 1)
            await self.servicer.set(service.name, _NOT_SERVING if reason else _SERVING)
        await self.servicer.set("", _SERVING if self.is_ready else _NOT_SERVING)

    async def close(self) -> None:
        """Report NOT_SERVING for all from now on."""
        self._closed = True
        for name in self._reasons:
            self._ready.labels(name).set(0)
        await self.servicer.enter_graceful_shutdown()


def readiness_gauge(registry: CollectorRegistry) -> Gauge:
    """The metric of readiness, by service."""
    return Gauge("detex_ready", "1 while the service can serve.", ("grpc_service",), registry=registry)


async def _reason(service: Service) -> str | None:
    """Why a service cannot serve, or None."""
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
            await service.check_readiness()
    except DetexError as error:
        return error.message
    except TimeoutError:
        return f"its check takes longer than {_CHECK_TIMEOUT_SECONDS:g} seconds"
    except Exception:
        logger.exception("the readiness check of %s fails on a defect", service.name)
        return "its check fails on a defect"
    return None
