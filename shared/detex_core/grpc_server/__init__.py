"""The asyncio gRPC server of the services: errors as statuses, tenants, metrics, health, reflection, an orderly end."""

from detex_core.grpc_server.server import Server, run_server
from detex_core.grpc_server.service import Service
from detex_core.grpc_server.status import ERROR_DOMAIN, as_domain_error, request_error, rich_status

__all__ = ["ERROR_DOMAIN", "Server", "Service", "as_domain_error", "request_error", "rich_status", "run_server"]
