"""A tenant's connections to both services, and how its calls end."""

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from detex_core.tenancy import TENANT_METADATA_KEY
from detex_protos.v1 import generator_pb2_grpc, trainer_pb2_grpc

CALL_SECONDS = 120.0
"""Deadline of calls that name none."""

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # tenants share no connection
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True)
class Addresses:
    """Where the services listen.

    Attributes:
        trainer: Host and port of its gRPC.
        generator: The same of the generator.
        trainer_metrics: Host and port of the trainer's metrics and probes.
        generator_metrics: The same of the generator.
    """

    trainer: str
    generator: str
    trainer_metrics: str
    generator_metrics: str


class Tenant:
    """One tenant's stubs; to be made inside of a running event loop.

    Args:
        name: Name of the tenant.
        addresses: Where the services listen.

    Attributes:
        metadata: What every call sends along.
        trainer: Stub of the trainer.
        generator: Stub of the generator.
        trainer_channel: Its channel, for calls that no stub makes.
        generator_channel: The same of the generator.
    """

    def __init__(self, name: str, addresses: Addresses) -> None:
        self.name = name
        self.metadata = ((TENANT_METADATA_KEY, name),)
        self.trainer_channel = grpc.aio.insecure_channel(addresses.trainer, _CHANNEL_OPTIONS)
        self.generator_channel = grpc.aio.insecure_channel(addresses.generator, _CHANNEL_OPTIONS)
        # The published types know the stubs of threads alone.
        self.trainer: Any = trainer_pb2_grpc.TrainerServiceStub(self.trainer_channel)
        self.generator: Any = generator_pb2_grpc.GeneratorServiceStub(self.generator_channel)

    def options(self, timeout_seconds: float = CALL_SECONDS) -> dict[str, Any]:
        """Keyword arguments of a call."""
        return {"timeout": timeout_seconds, "metadata": self.metadata}

    async def close(self) -> None:
        """Close both channels; calls under way are cancelled."""
        await self.trainer_channel.close(None)
        await self.generator_channel.close(None)


def told(error: grpc.aio.AioRpcError) -> str:
    """Status, reason and message of a call that failed, in one line."""
    reason = ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                if detail.Is(ErrorInfo.DESCRIPTOR):
                    info = ErrorInfo()
                    detail.Unpack(info)
                    reason = f" {info.reason}"
    return f"{error.code().name}{reason}: {error.details()}"
