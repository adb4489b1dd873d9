"""What is seen of the services from outside while they work: whether they live, and the memory of their processes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.soak.services import Services
from tests.deploy.running_service import RunningService

PROBE_SECONDS = 5.0
"""Time for an answer to a probe, as the chart gives it."""
_INTERVAL_SECONDS = 0.5
_MEBIBYTE = 1024**2


@dataclass
class Observation:
    """What was seen in one phase.

    Attributes:
        probe_seconds: How long probes took, by service and probe.
        missed: Probes that were not answered in time or not well, by service and probe, in words.
        peak_mebibytes: Largest resident memory, by process.
    """

    probe_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    missed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    peak_mebibytes: dict[str, float] = field(default_factory=dict)


@asynccontextmanager
async def observed(services: Services) -> AsyncIterator[Observation]:
    """Look at the services within an `async with` block."""
    observation = Observation()
    for service in services.both():
        _forget_peak(service.process.pid)
    watches = [asyncio.create_task(_watch_workers(services.trainer.process.pid, observation))]
    for service in services.both():
        watches.append(asyncio.create_task(_probe_loop(service, observation)))
        watches.append(asyncio.create_task(_probe_health(service, observation)))
    try:
        yield observation
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for service in services.both():
            with suppress(OSError):
                observation.peak_mebibytes[service.name] = _peak_bytes(service.process.pid) / _MEBIBYTE


async def _probe_loop(service: RunningService, observation: Observation) -> None:
    """GET /healthz over a connection of its own each time, as a kubelet does."""
    name = f"{service.name} /healthz"
    while True:
        begin = time.monotonic()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                status = await _get(service.metrics_address, "/healthz")
        except (OSError, TimeoutError) as error:
            observation.missed[name].append(repr(error))
        else:
            if status != 200:
                observation.missed[name].append(f"status {status}")
        observation.probe_seconds[name].append(time.monotonic() - begin)
        await asyncio.sleep(_INTERVAL_SECONDS)


async def _get(address: str, path: str) -> int:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        await writer.drain()
        words = (await reader.readline()).split()
        await reader.read()
    finally:
        writer.close()
    return int(words[1]) if len(words) > 1 else 0


async def _probe_health(service: RunningService, observation: Observation) -> None:
    name = f"{service.name} health"
    request = health_pb2.HealthCheckRequest(service=f"detex.v1.{service.name.title()}Service")
    while True:
        begin = time.monotonic()
        async with grpc.aio.insecure_channel(service.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(request, timeout=PROBE_SECONDS)
            except grpc.aio.AioRpcError as error:
                observation.missed[name].append(f"{error.code().name}: {error.details()}")
            else:
                if answer.status != health_pb2.HealthCheckResponse.SERVING:
                    observation.missed[name].append("not serving")
        observation.probe_seconds[name].append(time.monotonic() - begin)
        await asyncio.sleep(_INTERVAL_SECONDS)


async def _watch_workers(trainer_pid: int, observation: Observation) -> None:
    """Workers come and go; their memory is looked at again and again."""
    while True:
        largest = await asyncio.to_thread(_largest_child_bytes, trainer_pid)
        before = observation.peak_mebibytes.get("training worker", 0.0)
        observation.peak_mebibytes["training worker"] = max(before, largest / _MEBIBYTE)
        await asyncio.sleep(_INTERVAL_SECONDS)


def _largest_child_bytes(pid: int) -> int:
    largest = 0
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                largest = max(largest, child.memory_info().rss)
    return largest


def _forget_peak(pid: int) -> None:
    """Have the kernel count the peak of resident memory from now on (proc(5), clear_refs)."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
