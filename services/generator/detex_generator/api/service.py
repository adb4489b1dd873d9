"""The gRPC service: translates between the wire contract and the engine, and nothing else."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, aclosing, nullcontext
from functools import partial
from typing import Any

import grpc.aio

from detex_core.errors import DetexError, NotFoundError, ResourceExhaustedError
from detex_core.memory_budget import LARGE_MESSAGE_BYTES, MemoryBudget
from detex_core.tenancy import current_tenant
from detex_core.tenant_threads import TenantThreads
from detex_diffusion.solver import usual_solver
from detex_generator.api.messages import base_model_message, event_message, resident_message
from detex_generator.api.request_stream import RequestStream
from detex_generator.api.validation import checked_request
from detex_generator.base_models import BaseModels
from detex_generator.cache.concept_cache import ConceptCache
from detex_generator.engine import ActiveRequest, Engine
from detex_generator.metrics import GeneratorMetrics
from detex_generator.settings import GeneratorSettings
from detex_protos.v1 import generator_pb2, generator_pb2_grpc
from detex_protos.v1.generator_pb2 import GenerateRequest, GenerateResponse

_QUEUE_LOOK_SECONDS = 0.05

Context = grpc.aio.ServicerContext[Any, Any]


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """GeneratorService of the wire contract; raises DetexError, which the server turns into statuses."""

    def __init__(
        self,
        settings: GeneratorSettings,
        base_models: BaseModels,
        concepts: ConceptCache,
        engine: Engine,
        metrics: GeneratorMetrics,
        draining: asyncio.Event,
        messages: MemoryBudget,
    ) -> None:
        """Serve with these parts; once `draining` is set, streams of many requests end when what they began is done.

        Large requests of streams take their memory from `messages`.
        """
        self._settings = settings
        self._base_models = base_models
        self._concepts = concepts
        self._engine = engine
        self._metrics = metrics
        self._draining = draining
        self._messages = messages
        self._prefetching = TenantThreads(settings.loading_threads, "prefetching")

    async def Generate(  # noqa: N802
        self, request: GenerateRequest, context: Context
    ) -> AsyncGenerator[GenerateResponse]:
        """Draw the images of one request."""
        active = await self._begin(request, _deadline(context))
        async with aclosing(_events(active)) as responses:
            async for response in responses:
                yield response

    async def GenerateMany(  # noqa: N802
        self,
        request_iterator: AsyncIterator[generator_pb2.GenerateManyRequest],
        context: Context,
    ) -> AsyncGenerator[generator_pb2.GenerateManyResponse]:
        """Draw the images of many requests."""
        deadline = _deadline(context)

        async def draw(request: GenerateRequest) -> AsyncGenerator[GenerateResponse]:
            begun = await self._begin(request, deadline, waits=True)
            async with aclosing(_events(begun)) as responses:
                async for response in responses:
                    yield response

        stream = RequestStream(
            draw,
            self._room_for,
            in_flight=self._settings.max_requests_in_flight_per_stream,
            max_requests=self._settings.max_requests_per_stream,
            draining=self._draining,
        )
        async with aclosing(stream.answers(request_iterator)) as responses:
            async for response in responses:
                yield response

    async def ListBaseModels(  # noqa: N802
        self, request: generator_pb2.ListBaseModelsRequest, context: Context
    ) -> generator_pb2.ListBaseModelsResponse:
        """The base models that are served."""
        del request, context
        return generator_pb2.ListBaseModelsResponse(
            base_models=[base_model_message(served) for served in self._base_models.all()]
        )

    async def ListResidentConcepts(  # noqa: N802
        self, request: generator_pb2.ListResidentConceptsRequest, context: Context
    ) -> generator_pb2.ListResidentConceptsResponse:
        """The caller's concepts that lie in memory."""
        del request, context
        return generator_pb2.ListResidentConceptsResponse(
            concepts=[resident_message(resident) for resident in self._concepts.residents(current_tenant())]
        )

    async def PrefetchConcept(  # noqa: N802
        self, request: generator_pb2.PrefetchConceptRequest, context: Context
    ) -> generator_pb2.PrefetchConceptResponse:
        """Load a concept ahead of its first request."""
        del context
        base_model = self._base_models.get(request.base_model).model
        prefetch = partial(
            self._concepts.prefetch,
            current_tenant(),
            request.reference.name,
            request.reference.version,
            base_model,
            pin=request.pin if request.HasField("pin") else None,
        )
        try:
            resident = await self._prefetching.run(prefetch)
        except NotFoundError as error:
            raise NotFoundError(f"reference: {error.message}", reason=error.reason) from error
        return generator_pb2.PrefetchConceptResponse(concept=resident_message(resident))

    def _room_for(self, message: generator_pb2.GenerateManyRequest) -> AbstractContextManager[None]:
        """Memory of a request of a stream while it is worked on; its stream has waited for it before it was parsed."""
        size = message.ByteSize()
        if size < LARGE_MESSAGE_BYTES:
            return nullcontext()
        return self._messages.hold_what_is_taken(size, current_tenant())

    async def _begin(self, message: GenerateRequest, deadline: float | None, *, waits: bool = False) -> ActiveRequest:
        """Check a request and hand it to the engine; refusals are counted here, all else by the engine.

        Args:
            message: As it came.
            deadline: Time of `time.monotonic` at which its caller stops waiting.
            waits: Whether it waits where the queue is full, which holds its stream up, instead of being refused.
        """
        try:
            served = self._base_models.get(message.base_model)
            check = partial(
                checked_request,
                message,
                served.settings,
                width=served.model.width,
                height=served.model.height,
                settings=self._settings,
                usual_solver=usual_solver(served.model.noise_schedule),
            )
            # The headers of files are read, which is not for the event loop.
            has_files = message.HasField("edit") or any(region.mask for region in message.regions)
            request = await asyncio.to_thread(check) if has_files else check()
            while True:
                try:
                    return self._engine.submit(request, current_tenant(), deadline=deadline)
                except ResourceExhaustedError:
                    if not waits:
                        raise
                # Not for as long as the error says: places are given to whoever asks first.
                await asyncio.sleep(_QUEUE_LOOK_SECONDS)
        except DetexError as error:
            self._metrics.requests.labels(error.code.name).inc()
            self._metrics.refusals.labels(error.reason).inc()
            raise


async def _events(active: ActiveRequest) -> AsyncGenerator[GenerateResponse]:
    try:
        async for event in active.stream:
            yield event_message(event)
    finally:
        active.cancel()


def _deadline(context: Context) -> float | None:
    """Time of `time.monotonic` at which the caller stops waiting; None where it set no deadline."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining
