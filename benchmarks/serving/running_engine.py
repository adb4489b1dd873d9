"""The generator in this process, and requests to its engine without gRPC in between.

The peer is a Python object that is called, so the engine is called too: what gRPC costs is left out on both sides. All
else is the service's own: `Generator` puts the parts together, and requests are checked as the service checks them.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from benchmarks.serving.arrivals import Ask
from benchmarks.serving.scale import GUIDANCE_SCALE, NEGATIVE_PROMPT
from detex_core.metrics import new_registry
from detex_core.settings import ObjectStoreSettings
from detex_generator.api.validation import checked_request
from detex_generator.engine import FinishedImage, Progress
from detex_generator.generator import Generator
from detex_generator.settings import GeneratorSettings
from detex_protos.v1.generator_pb2 import GenerateRequest

_T = TypeVar("_T")
_LOAD_SECONDS = 120.0


@dataclass(frozen=True)
class Drawn:
    """What became of a request.

    Attributes:
        start: When it was handed over (of `time.perf_counter`).
        first_step: When its first step was told.
        end: When its last image was there.
        pngs: Its images.
    """

    start: float
    first_step: float
    end: float
    pngs: tuple[bytes, ...]

    @property
    def seconds(self) -> float:
        """From start to end."""
        return self.end - self.start


def engine_settings(object_store: ObjectStoreSettings, **changes: object) -> GeneratorSettings:
    """Settings of a generator for measurements: no ports but a free one, all else as by default."""
    values: dict[str, object] = {
        "listen_address": "127.0.0.1:0",
        "metrics_address": "",
        "object_store": object_store,
        "log_level": "WARNING",
        "readiness_interval_seconds": 0.05,
        "newest_version_seconds": 60.0,
    }
    return GeneratorSettings.model_validate(values | changes)


def message_of(ask: Ask, steps: int, **changes: Any) -> GenerateRequest:
    """A request as it would come over the wire."""
    fields: dict[str, Any] = {
        "prompt": ask.prompt,
        "negative_prompt": NEGATIVE_PROMPT,
        "guidance_scale": GUIDANCE_SCALE,
        "steps": steps,
        "seed": ask.seed,
    }
    return GenerateRequest(**(fields | changes))


class RunningEngine:
    """A generator with an event loop of its own in a thread; a context manager."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self.settings = settings
        self.registry: CollectorRegistry = new_registry("generator")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-clients", daemon=True)

    def __enter__(self) -> "RunningEngine":
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the engine's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def metric(self, name: str, **labels: str) -> float:
        """Value of a metric of the generator; 0 where it has not been touched."""
        return self.registry.get_sample_value(f"detex_generator_{name}", labels) or 0.0

    async def draw(
        self, message: GenerateRequest, on_step: Callable[[], None] | None = None, tenant: str = "default"
    ) -> Drawn:
        """Draw the images of one request.

        Args:
            message: As it would come over the wire.
            on_step: Called at each step of each image.
            tenant: Whose request it is.
        """
        start = time.perf_counter()
        served = self.generator.base_models.get(message.base_model)
        request = checked_request(
            message,
            served.settings,
            width=served.model.width,
            height=served.model.height,
            settings=self.settings,
        )
        active = self.generator.engine.submit(request, tenant)
        first_step = 0.0
        pngs = []
        try:
            async for event in active.stream:
                if isinstance(event, Progress):
                    first_step = first_step or time.perf_counter()
                    if on_step is not None:
                        on_step()
                elif isinstance(event, FinishedImage):
                    pngs.append(event.png)
        finally:
            active.cancel()
        return Drawn(start, first_step, time.perf_counter(), tuple(pngs))

    def draw_one(self, message: GenerateRequest) -> Drawn:
        """Draw the images of one request and wait for them."""
        return self.run(self.draw(message))

    def draw_all(self, messages: Sequence[GenerateRequest]) -> tuple[list[Drawn], float]:
        """Hand over many requests at once; their outcomes, and the seconds until the last was done."""

        async def together() -> tuple[list[Drawn], float]:
            start = time.perf_counter()
            drawn = await asyncio.gather(*(self.draw(message) for message in messages))
            return drawn, time.perf_counter() - start

        return self.run(together())

    def draw_in_turn(self, messages: Sequence[GenerateRequest], in_flight: int) -> None:
        """Draw requests with so many in flight at a time, and keep none of the images."""

        async def in_turn() -> None:
            free = asyncio.Semaphore(in_flight)

            async def one(message: GenerateRequest) -> None:
                await self.draw(message)
                free.release()

            async with asyncio.TaskGroup() as group:
                for message in messages:
                    await free.acquire()
                    group.create_task(one(message))

        self.run(in_turn())

    def draw_at(self, messages: Sequence[GenerateRequest], arrivals: Sequence[float]) -> list[float]:
        """Hand over each request when it arrives; for each the seconds from the begin of the run to its image."""

        async def at(begin: float, arrival: float, message: GenerateRequest) -> float:
            await asyncio.sleep(begin + arrival - time.perf_counter())
            return (await self.draw(message)).end - begin

        async def all_at() -> list[float]:
            begin = time.perf_counter()
            work: list[Awaitable[float]] = [
                at(begin, arrival, message) for arrival, message in zip(arrivals, messages, strict=True)
            ]
            return await asyncio.gather(*work)

        return self.run(all_at())

    async def _start(self) -> None:
        self.generator = Generator(self.settings, self.registry)
        await self.generator.start()
        async with asyncio.timeout(_LOAD_SECONDS):
            while not self.generator.base_models.loaded:
                await asyncio.sleep(0.01)

    async def _close(self) -> None:
        self.generator.server.request_drain()
        await self.generator.server.drain()
        await self.generator.close()
