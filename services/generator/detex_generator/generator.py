"""The generator: its parts put together within an event loop."""

import asyncio
import logging
from functools import partial

from prometheus_client import CollectorRegistry

from detex_core.artifact import ConceptArchive
from detex_core.errors import DetexError, UnavailableError
from detex_core.grpc_server.server import Server
from detex_core.grpc_server.service import Service
from detex_core.memory_budget import message_budget, picture_budget
from detex_core.metrics import new_registry
from detex_core.object_store import open_object_store
from detex_core.tracing import Tracing
from detex_core.tracing_switch import open_tracing
from detex_diffusion.base_model import BaseModel
from detex_diffusion.unet import KeyValueUNet
from detex_generator.api.service import GeneratorServicer
from detex_generator.base_models import BaseModels, device_and_dtype
from detex_generator.cache.concept_cache import ConceptCache
from detex_generator.cache.prompt_cache import PromptCache
from detex_generator.cache.unet_cache import UNetCache
from detex_generator.compute.acceleration import Acceleration
from detex_generator.compute.compilation import chosen_compiler, expect_usual_sizes
from detex_generator.engine import Admission, Engine
from detex_generator.engine.failures import EngineStoppedError
from detex_generator.metrics import GeneratorMetrics
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Operation
from detex_generator.settings import GeneratorSettings
from detex_protos.v1.generator_pb2 import DESCRIPTOR
from detex_protos.v1.generator_pb2_grpc import add_GeneratorServiceServicer_to_server

SERVICE_NAME = DESCRIPTOR.services_by_name["GeneratorService"].full_name
_logger = logging.getLogger(__name__)


class Generator:
    """The generator within a running event loop, from its settings to a listening server.

    It listens at once and reports NOT_SERVING until its base models are loaded. When the engine comes to an unplanned
    end, it reports NOT_SERVING and ends, so that whoever supervises the process restarts it.

    Attributes:
        server: The gRPC server; its `address` is known once `start` has returned.
        engine: The engine.
        base_models: The base models.
        concepts: The concepts in memory.
        failure: What ended the generator before it was asked to stop, or None.
    """

    def __init__(
        self, settings: GeneratorSettings, registry: CollectorRegistry | None = None, tracing: Tracing | None = None
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            settings: Its settings.
            registry: Where metrics go; a new one where absent.
            tracing: Where traces go; what the environment says where absent. Closed with the generator.

        Raises:
            DetexError: A device, a kernel or traces are asked for that cannot be had here.
        """
        registry = registry or new_registry("generator")
        metrics = GeneratorMetrics(registry)
        metrics.watch_device_memory()
        metrics.serves(model.name for model in settings.base_models)
        object_store = open_object_store(settings.object_store, create=False)
        self.concepts = ConceptCache(
            ConceptArchive(object_store),
            capacity_bytes=settings.concept_cache_bytes,
            newest_version_seconds=settings.newest_version_seconds,
            metrics=metrics,
            device_capacity_bytes=settings.device_concept_cache_bytes,
            retry_seconds=settings.store_retry_seconds,
            retry_longest_seconds=settings.store_retry_longest_seconds,
        )
        self.failure: BaseException | None = None
        self._tracing = open_tracing("detex-generator") if tracing is None else tracing
        self._settings = settings
        self.base_models = BaseModels(settings, object_store)
        prompts = PromptCache(settings.prompt_cache_bytes, metrics)
        unets = UNetCache(settings.unet_cache_bytes, metrics)
        admission = Admission(self.base_models, self.concepts, prompts, unets, picture_budget(settings))
        self._acceleration = self._chosen_acceleration(metrics)
        self.engine = Engine(
            settings,
            admission,
            metrics,
            acceleration=self._acceleration,
            on_failure=partial(self._fail_from_thread, asyncio.get_running_loop()),
        )
        draining = asyncio.Event()
        messages = message_budget(settings)
        servicer = GeneratorServicer(
            settings, self.base_models, self.concepts, self.engine, metrics, draining, messages
        )
        service = Service(
            SERVICE_NAME, partial(add_GeneratorServiceServicer_to_server, servicer), self._check_readiness
        )
        self.server = Server(settings, [service], registry, tracing=self._tracing, messages=messages)
        self._draining = draining
        self._tasks: list[asyncio.Task[None]] = []

    def _prepare(self, base_model: BaseModel) -> None:
        if self._acceleration is not None:
            steps = self._acceleration.steps(KeyValueUNet(base_model.unet, base_model.pixels_per_latent), keep=True)
            guided = self._settings.base_model(base_model.name).default_guidance_scale > 1
            expect_usual_sizes(steps, base_model, self._settings.slots, guided=guided)

    def _chosen_acceleration(self, metrics: GeneratorMetrics) -> Acceleration | None:
        """Kernels and graphs where any are to be used; says what computes each operation."""
        device, dtype = device_and_dtype(self._settings)
        choice = KernelChoice(self._settings.kernels, device, dtype)
        _logger.info("Kernels on %s: %s", device.type, choice.describe())
        for operation, decision in choice.decisions.items():
            metrics.kernel_choice.labels(operation.value, decision.implementation.value).set(1)
        compiler = chosen_compiler(self._settings, choice, device, metrics)
        if compiler is None and device.type == "cpu" and not any(choice.uses(operation) for operation in Operation):
            return None
        return Acceleration(choice, device, cuda_graphs=self._settings.cuda_graphs, compiler=compiler)

    async def start(self) -> None:
        """Begin to listen, and to load base models in the background.

        Raises:
            FailedPreconditionError: An address cannot be listened on.
        """
        self.engine.start()
        await self.server.start()
        works = (self._load(), self._drain_engine(), self._watch_store())
        self._tasks = [asyncio.create_task(work) for work in works]

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then finish what was accepted; returns the exit status of the process."""
        await self.start()
        try:
            await self.server.run()
        finally:
            await self.close()
        return 0 if self.failure is None else 1

    async def close(self) -> None:
        """End; in order where `run` has drained the server, else at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.engine.close)
        if self._acceleration is not None:
            self._acceleration.close()
        await asyncio.to_thread(self._tracing.close)

    async def _load(self) -> None:
        try:
            await asyncio.to_thread(self.base_models.load, self._prepare)
        except Exception as error:
            # What is of the domain has been told in full; the trace is for defects.
            trace = None if isinstance(error, DetexError) else error
            _logger.critical("The generator ends, for it cannot load its base models", exc_info=trace)
            self._fail(error)

    async def _watch_store(self) -> None:
        """Know whether the object store answers without a request; readiness does not depend on it."""
        while True:
            await asyncio.to_thread(self.concepts.look_at_store)
            await asyncio.sleep(self._settings.readiness_interval_seconds)

    async def _drain_engine(self) -> None:
        await self.server.draining.wait()
        self.engine.drain()
        self._draining.set()
        # What is not done when the grace ends is told so by the engine, with a status that says what to do; gRPC would
        # only cut it off.
        grace_seconds = self._settings.drain_grace_seconds
        await asyncio.sleep(self._settings.drain_delay_seconds + grace_seconds - min(1.0, 0.1 * grace_seconds))
        self.engine.give_up()

    def _fail_from_thread(self, loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
        loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self.server.request_drain()

    async def _check_readiness(self) -> None:
        if not self.engine.healthy:
            raise EngineStoppedError
        if not self.base_models.loaded:
            raise UnavailableError("The base models are still being loaded.", reason="LOADING")
