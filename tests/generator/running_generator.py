"""A real generator on loopback, in a thread of the test's process, and what tests ask of it."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import grpc
import grpc.aio
import numpy as np
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from detex_core.metrics import new_registry
from detex_core.settings import BaseModelSettings, ObjectStoreSettings
from detex_core.tracing import Tracing
from detex_generator.generator import SERVICE_NAME, Generator
from detex_generator.settings import GeneratorSettings
from detex_protos.v1 import generator_pb2, generator_pb2_grpc
from detex_protos.v1.generator_pb2 import GeneratedImage, GenerateRequest, GenerateResponse

TIMEOUT_SECONDS = 120.0


def generator_settings(models: dict[str, Path], store: Path, **changes: object) -> GeneratorSettings:
    """Settings of a generator on free ports over a folder store."""
    values: dict[str, object] = {
        "listen_address": "127.0.0.1:0",
        "metrics_address": "",
        "object_store": ObjectStoreSettings(url=f"folder://{store}"),
        "base_models": tuple(
            BaseModelSettings(name=name, source=str(folder), default_steps=4) for name, folder in models.items()
        ),
        "readiness_interval_seconds": 0.02,
        "device": "cpu",
        "denoising_threads": 1,
    }
    return GeneratorSettings.model_validate(values | changes)


class RunningGenerator:
    """A generator that serves until closed."""

    def __init__(self, settings: GeneratorSettings, tracing: Tracing | None = None) -> None:
        self.settings = settings
        self._tracing = tracing
        self.registry: CollectorRegistry = new_registry("generator")
        self.generator: Generator
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(TIMEOUT_SECONDS)
        if self._error is not None:
            raise self._error
        self.channel = grpc.insecure_channel(
            self.generator.server.address, options=[("grpc.max_receive_message_length", -1)]
        )
        self.stub = generator_pb2_grpc.GeneratorServiceStub(self.channel)
        wait_until(lambda: self.health() == health_pb2.HealthCheckResponse.SERVING)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self.generator = Generator(self.settings, self.registry, self._tracing)
            await self.generator.start()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._started.set()
        await self.generator.server.draining.wait()
        await self.generator.server.drain()
        await self.generator.close()

    def drain(self) -> None:
        """What SIGTERM does."""
        self._loop.call_soon_threadsafe(self.generator.server.request_drain)

    def close(self) -> None:
        self.channel.close()
        if self._thread.is_alive():
            self.drain()
            self._thread.join(TIMEOUT_SECONDS)
        assert not self._thread.is_alive()

    def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=TIMEOUT_SECONDS).status

    def start(self, tenant: str = "default", **fields: object) -> "grpc.CallIterator[GenerateResponse]":
        """Begin a call."""
        return self.stub.Generate(
            GenerateRequest(**fields), timeout=TIMEOUT_SECONDS, metadata=[("detex-tenant", tenant)]
        )

    def draw(self, tenant: str = "default", **fields: object) -> list[GeneratedImage]:
        """All images of a request, in their order."""
        return images_of(self.start(tenant, **fields))

    def metric(self, name: str, **labels: str) -> float:
        """Value of a metric of the generator; 0 where it has not been touched."""
        return self.registry.get_sample_value(f"detex_generator_{name}", labels) or 0.0


@contextmanager
def running(settings: GeneratorSettings, tracing: Tracing | None = None) -> Iterator[RunningGenerator]:
    generator = RunningGenerator(settings, tracing)
    try:
        yield generator
    finally:
        generator.close()


def images_of(responses: Iterator[GenerateResponse]) -> list[GeneratedImage]:
    images = [response.image for response in responses if response.HasField("image")]
    return sorted(images, key=lambda image: image.image_index)


def wait_until(holds: Callable[[], bool], timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Look again and again until something holds."""
    deadline = monotonic() + timeout_seconds
    pause = threading.Event()
    while not holds():
        assert monotonic() < deadline, "it did not come to hold in time"
        pause.wait(0.002)


def pixels(png: bytes) -> NDArray[np.int16]:
    """(H, W, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def signal_to_noise_decibels(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    """PSNR of two 8-bit images."""
    assert one.shape == other.shape
    error = float(np.mean((one - other).astype(np.float64) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


class Refusal:
    """A status with its google.rpc details."""

    def __init__(self, error: grpc.RpcError) -> None:
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        self.code = error.code()
        self.message = error.details()
        self.reason = ""
        self.violations: dict[str, str] = {}
        self.retry_seconds: float | None = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                self._read(Status.FromString(value))

    def _read(self, status: Status) -> None:
        for detail in status.details:
            if detail.Is(ErrorInfo.DESCRIPTOR):
                info = ErrorInfo()
                detail.Unpack(info)
                self.reason = info.reason
            elif detail.Is(BadRequest.DESCRIPTOR):
                request = BadRequest()
                detail.Unpack(request)
                self.violations = {each.field: each.description for each in request.field_violations}
            elif detail.Is(RetryInfo.DESCRIPTOR):
                retry = RetryInfo()
                detail.Unpack(retry)
                self.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()


def refusal_of(call: Iterator[object]) -> Refusal:
    """The status that a call ends with; it must not end well."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError("the call was not refused")


Solver = generator_pb2.Solver
