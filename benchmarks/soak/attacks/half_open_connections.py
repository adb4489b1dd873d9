"""Connections that begin to ask and never end, to probes and to gRPC."""

import asyncio
from contextlib import suppress

from benchmarks.soak.attacks.attacker import Attacker

_METRICS_CONNECTIONS, _GRPC_CONNECTIONS = 400, 100
_HOLD_SECONDS = 5.0
_BEGINNINGS = {"http": b"GET /metrics HTTP/1.1\r\n", "grpc": b"PRI * HTTP/2.0\r\n\r\n"}


async def attack(attacker: Attacker) -> None:
    """Hold hundreds of them to each port."""
    addresses = attacker.addresses
    held: list[asyncio.StreamWriter] = []
    try:
        for address in (addresses.trainer_metrics, addresses.generator_metrics):
            await _open(attacker, address, _BEGINNINGS["http"], _METRICS_CONNECTIONS, held)
        for address in (addresses.trainer, addresses.generator):
            await _open(attacker, address, _BEGINNINGS["grpc"], _GRPC_CONNECTIONS, held)
        await asyncio.sleep(_HOLD_SECONDS)
    finally:
        for writer in held:
            writer.close()


async def _open(
    attacker: Attacker, address: str, beginning: bytes, connections: int, held: list[asyncio.StreamWriter]
) -> None:
    host, _, port = address.rpartition(":")
    for _ in range(connections):
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                _, writer = await asyncio.open_connection(host, int(port))
            held.append(writer)
            writer.write(beginning)
            attacker.ended["connected"] += 1
