"""A gRPC service as the server takes it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio


@dataclass(frozen=True)
class Service:
    """A servicer and how to know that it can serve.

    Attributes:
        name: Full name, for example `detex.v1.GeneratorService`; for health and reflection.
        register: Adds the servicer to a server, for example
            `functools.partial(add_GeneratorServiceServicer_to_server, servicer)`.
        check_readiness: Raises while the service cannot serve, a DetexError where the reason is known; called every few
            seconds. Blocking checks such as `ObjectStore.check` belong into `asyncio.to_thread`.
    """

    name: str
    register: Callable[[grpc.aio.Server], None]
    check_readiness: Callable[[], Awaitable[None]]
