"""Whether traces are told, and to whom: as OpenTelemetry's own environment variables say."""

import os
from collections.abc import Mapping

from detex_core.errors import FailedPreconditionError
from detex_core.tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracing_is_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenTelemetry's environment variables name an endpoint and do not switch it off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


def open_tracing(service: str) -> Tracing:
    """Tracing as OpenTelemetry's environment variables want it, off where they name no endpoint.

    Args:
        service: Name of the service, where OTEL_SERVICE_NAME gives no other.

    Raises:
        FailedPreconditionError: It is switched on, and its packages are not installed or its protocol is not spoken.
    """
    if not tracing_is_on():
        return Tracing()
    try:
        from detex_core.opentelemetry_tracing import exporting_tracing
    except ImportError as error:
        raise FailedPreconditionError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name} is not installed; install the extra `tracing`, or "
            "unset the endpoint.",
            reason="TRACING_UNAVAILABLE",
        ) from error
    return exporting_tracing(service)
