"""Many requests over one stream: each for itself, only so many at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, aclosing
from functools import partial

from detex_core.errors import AlreadyExistsError, ResourceExhaustedError, UnavailableError, invalid_input
from detex_core.grpc_server.status import request_error
from detex_protos.v1 import generator_pb2
from detex_protos.v1.generator_pb2 import GenerateManyRequest, GenerateManyResponse

MAX_KEY_CHARACTERS = 128

Room = Callable[[GenerateManyRequest], AbstractContextManager[None]]
Draw = Callable[[generator_pb2.GenerateRequest], AsyncGenerator[generator_pb2.GenerateResponse]]


class RequestStream:
    """One GenerateMany call.

    Its caller is told of each request under the request's key, in the order in which news arise. Requests are read only
    while fewer than `in_flight` are being worked on, and news are made only as fast as the caller reads them.
    """

    def __init__(self, draw: Draw, room: Room, *, in_flight: int, max_requests: int, draining: asyncio.Event) -> None:
        """Prepare.

        Args:
            draw: Draws one request; what it raises is the failure of that request alone.
            room: Memory of a request, held from before the next one is read until it is done; does not wait.
            in_flight: Requests that are worked on at the same time.
            max_requests: Requests that the stream may carry in all; keys are remembered to find duplicates.
            draining: Once it is set, the stream ends as soon as all that was begun is done.
        """
        self._draw = draw
        self._room = room
        self._free = asyncio.Semaphore(in_flight)
        self._max_requests = max_requests
        self._draining = draining
        self._news: asyncio.Queue[GenerateManyResponse | Exception | None] = asyncio.Queue(2 * in_flight)
        self._keys: set[str] = set()
        self._ended: dict[str, asyncio.Event] = {}  # of the requests that are being worked on, by key
        self._tasks: set[asyncio.Task[None]] = set()

    async def answers(self, requests: AsyncIterator[GenerateManyRequest]) -> AsyncGenerator[GenerateManyResponse]:
        """All news of all requests; ends when the caller has sent its last request and all are done.

        Raises:
            UnavailableError: The server drains; all requests that were begun have been answered.
        """
        guards = [asyncio.create_task(self._read(requests)), asyncio.create_task(self._end_on_draining())]
        try:
            while (news := await self._news.get()) is not None:
                if isinstance(news, Exception):
                    raise news
                yield news
        finally:
            for task in (*guards, *self._tasks):
                task.cancel()
            await asyncio.gather(*guards, *self._tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[GenerateManyRequest]) -> None:
        try:
            # A place first: while a large request is read, memory is held that those in places may need.
            while await self._free.acquire() and (request := await anext(requests, None)) is not None:
                held = ExitStack()
                held.enter_context(self._room(request))
                task = asyncio.create_task(self._serve(request))
                task.add_done_callback(partial(self._let_go, held))
                self._tasks.add(task)
                task.add_done_callback(self._done)
            await self._wait_for_tasks()
            await self._news.put(None)
        except Exception as error:
            await self._news.put(error)

    async def _end_on_draining(self) -> None:
        await self._draining.wait()
        await self._wait_for_tasks()
        await self._news.put(UnavailableError("The generator is shutting down; open a new stream.", reason="DRAINING"))

    async def _wait_for_tasks(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _let_go(self, held: ExitStack, _task: asyncio.Task[None]) -> None:
        held.close()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free.release()

    async def _serve(self, request: GenerateManyRequest) -> None:
        key = request.key
        try:
            self._check(key)
        except Exception as error:
            if (first := self._ended.get(key)) is not None:
                await first.wait()  # an error now would end the request that has this key
            await self._news.put(GenerateManyResponse(key=key, error=request_error(error)))
            return
        ended = self._ended[key] = asyncio.Event()
        try:
            await self._draw_one(key, request)
        finally:
            del self._ended[key]
            ended.set()

    async def _draw_one(self, key: str, request: GenerateManyRequest) -> None:
        images = 0
        try:
            async with aclosing(self._draw(request.request)) as responses:
                async for response in responses:
                    images += response.HasField("image")
                    await self._news.put(GenerateManyResponse(key=key, response=response))
        except Exception as error:
            await self._news.put(GenerateManyResponse(key=key, error=request_error(error)))
        else:
            await self._news.put(GenerateManyResponse(key=key, done=generator_pb2.RequestDone(images=images)))

    def _check(self, key: str) -> None:
        """Raise where a key is malformed or was used before, or the stream is longer than it may be."""
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
            given = f"{len(key):,}"
            raise invalid_input("key", given, f"1 to {MAX_KEY_CHARACTERS} characters")
        if key in self._keys:
            raise AlreadyExistsError(
                f"key: must be unique within the stream, got {key!r} again.",
                reason="DUPLICATE_KEY",
            )
        if len(self._keys) >= self._max_requests:
            raise ResourceExhaustedError(
                f"This stream has reached its limit of {self._max_requests:,} requests; open another.",
                reason="STREAM_TOO_LONG",
            )
        self._keys.add(key)
