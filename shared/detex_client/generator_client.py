"""Python client of the generator."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import grpc

from detex_client.background_call import BackgroundStream, StreamingCall
from detex_client.concept import BaseModel, ConceptReference
from detex_client.connection import DEFAULT_TIMEOUT_SECONDS, BearerToken, Connection, Tls
from detex_client.errors import DetexClientError, from_request_error, naming_files, with_file_names
from detex_client.picture import (
    GeneratedPicture,
    GenerationEvent,
    PictureOptions,
    PictureRequest,
    event_from_wire,
)
from detex_client.request_stream import RequestStream
from detex_client.wire_message import wire_message
from detex_core.tenancy import DEFAULT_TENANT
from detex_protos.v1 import generator_pb2, generator_pb2_grpc

DEFAULT_ADDRESS = "127.0.0.1:50052"
GENERATION_TIMEOUT_SECONDS = 600.0
STREAM_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True)
class RequestFailed:
    """One request of many failed; the others continue.

    Attributes:
        error: As a single call would have raised it.
    """

    error: DetexClientError


@dataclass(frozen=True)
class RequestDone:
    """One request of many is done.

    Attributes:
        images: Pictures sent.
    """

    images: int


@dataclass(frozen=True)
class RequestEvent:
    """News of one request of many.

    Attributes:
        request_index: Position of the request in the iterable, from 0.
        event: The news; after RequestFailed or RequestDone nothing more comes for the request.
    """

    request_index: int
    event: GenerationEvent | RequestFailed | RequestDone


@dataclass(frozen=True)
class ResidentConcept:
    """A concept in the generator's memory.

    Attributes:
        reference: Name and version.
        base_model: Base model it is loaded for.
        size_bytes: Memory it takes.
        idle_seconds: Time since its last use.
        pinned: Whether it stays whatever others need.
    """

    reference: ConceptReference
    base_model: str
    size_bytes: int
    idle_seconds: float
    pinned: bool = False


class GeneratorClient(Connection):
    """Draws pictures. Safe to use from several threads.

    All methods raise DetexClientError with the generator's own words: INVALID_ARGUMENT with the fields to correct,
    NOT_FOUND for an unknown concept, FAILED_PRECONDITION for a concept of another base model, RESOURCE_EXHAUSTED with a
    delay when it is overloaded, UNAVAILABLE when none answers.

    Args:
        address: `host:port`.
        tenant: Whose concepts prompts name.
        tls: None speaks plain text, which is meant for loopback and for inside a cluster.
        timeout_seconds: Deadline of calls that answer at once.
        token: Tells the service who calls; None where it does not ask.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        tenant: str = DEFAULT_TENANT,
        *,
        tls: Tls | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        token: BearerToken | None = None,
    ) -> None:
        super().__init__(
            service="generator",
            contract="detex.v1.GeneratorService",
            safe_to_repeat=("Generate", "ListBaseModels", "ListResidentConcepts", "PrefetchConcept"),
            address=address,
            tenant=tenant,
            tls=tls,
            timeout_seconds=timeout_seconds,
            token=token,
        )
        self._stub = generator_pb2_grpc.GeneratorServiceStub(self.channel)

    def generate(
        self,
        prompt: str,
        *,
        on_progress: Callable[[GenerationEvent], None] = lambda _: None,
        timeout_seconds: float = GENERATION_TIMEOUT_SECONDS,
        **options: Unpack[PictureOptions],
    ) -> list[GeneratedPicture]:
        """Draw the pictures of one prompt and wait for them.

        Args:
            prompt: What to draw, with words of concepts in square brackets, `[my-mug] on a beach`.
            on_progress: Called with all news.
            timeout_seconds: Deadline of the whole call.
            options: As PictureRequest documents them.
        """
        pictures = []
        for event in self.generate_events(PictureRequest(prompt, **options), timeout_seconds=timeout_seconds):
            on_progress(event)
            if isinstance(event, GeneratedPicture):
                pictures.append(event)
        return sorted(pictures, key=lambda picture: picture.image_index)

    def generate_events(
        self, request: PictureRequest, *, timeout_seconds: float = GENERATION_TIMEOUT_SECONDS
    ) -> Iterator[GenerationEvent]:
        """Draw the pictures of one request: place in the queue, steps, previews, pictures as they are ready.

        Leaving the iterator early ends the work at the generator's next step.
        """
        message = request.to_wire()
        with naming_files(request.files()), self.errors():
            for response in BackgroundStream(
                lambda: self._stub.Generate(message, timeout=timeout_seconds, metadata=self.metadata)
            ):
                event = event_from_wire(response)
                if event is not None:
                    yield event

    def generate_many(
        self, requests: Iterable[PictureRequest], *, timeout_seconds: float = STREAM_TIMEOUT_SECONDS
    ) -> Iterator[RequestEvent]:
        """Draw many requests over one stream; news come in the order in which they are ready.

        A request that the generator refuses gives RequestFailed and the others continue. An exception of `requests`
        itself ends the stream and is raised here.

        Args:
            requests: Taken one after the other, from another thread.
            timeout_seconds: Deadline of the whole stream.
        """
        files: dict[int, Mapping[str, Path]] = {}  # of requests that are not done, by index

        def messages() -> Iterator[generator_pb2.GenerateManyRequest]:
            for index, request in enumerate(requests):
                if named := request.files():
                    files[index] = named
                yield generator_pb2.GenerateManyRequest(key=str(index), request=request.to_wire())

        stream = RequestStream(messages())

        def begin() -> StreamingCall[generator_pb2.GenerateManyResponse]:
            call = self._stub.GenerateMany(iter(stream), timeout=timeout_seconds, metadata=self.metadata)
            stream.attach(call)
            return call

        with self.errors():
            try:
                for response in BackgroundStream(begin):
                    event, index = _many_event(response), int(response.key)
                    if isinstance(event, RequestFailed):
                        event = RequestFailed(with_file_names(event.error, files.get(index, {})))
                    if isinstance(event, RequestFailed | RequestDone):
                        files.pop(index, None)
                    if event is not None:
                        yield RequestEvent(index, event)
            except grpc.RpcError:
                if stream.failure is not None:
                    raise stream.failure from None
                raise
        if stream.failure is not None:
            raise stream.failure

    def base_models(self) -> tuple[BaseModel, ...]:
        """The base models that this generator serves, by name."""
        answer = self.unary(self._stub.ListBaseModels, generator_pb2.ListBaseModelsRequest())
        return tuple(map(BaseModel.from_wire, answer.base_models))

    def resident_concepts(self) -> tuple[ResidentConcept, ...]:
        """The tenant's concepts in memory, the one used last first."""
        answer = self.unary(self._stub.ListResidentConcepts, generator_pb2.ListResidentConceptsRequest())
        return tuple(map(_resident, answer.concepts))

    def prefetch(
        self, name: str, version: str = "", *, base_model: str = "", pin: bool | None = None
    ) -> ResidentConcept:
        """Load a concept ahead of its first picture; without a version the newest.

        Args:
            name: Which.
            version: Which version.
            base_model: Base model by name; empty means the generator's default.
            pin: True keeps it in memory until a call with False; None leaves that as it is.
        """
        request = wire_message(
            generator_pb2.PrefetchConceptRequest,
            reference=ConceptReference(name, version).to_wire(),
            base_model=base_model,
            pin=pin,
        )
        answer = self.unary(self._stub.PrefetchConcept, request, GENERATION_TIMEOUT_SECONDS)
        return _resident(answer.concept)


def _many_event(response: generator_pb2.GenerateManyResponse) -> GenerationEvent | RequestFailed | RequestDone | None:
    match response.WhichOneof("event"):
        case "response":
            return event_from_wire(response.response)
        case "error":
            return RequestFailed(from_request_error(response.error))
        case "done":
            return RequestDone(response.done.images)
        case _:
            return None


def _resident(concept: generator_pb2.ResidentConcept) -> ResidentConcept:
    return ResidentConcept(
        reference=ConceptReference.from_wire(concept.reference),
        base_model=concept.base_model,
        size_bytes=concept.size_bytes,
        idle_seconds=concept.idle_time.ToTimedelta().total_seconds(),
        pinned=concept.pinned,
    )
