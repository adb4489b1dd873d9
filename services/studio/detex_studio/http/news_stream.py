"""News as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from detex_studio.broadcast import Broadcast, News

HEARTBEAT_SECONDS = 15.0


def news_stream(news: Broadcast, ending: asyncio.Event) -> StreamingResponse:
    """All news until their end; the last event is called `end`, so that browsers do not ask again.

    Args:
        news: What to tell.
        ending: Set when Studio ends.
    """
    return StreamingResponse(_events(news, ending), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _events(news: Broadcast, ending: asyncio.Event) -> AsyncIterator[bytes]:
    told = news.listen()
    ended = asyncio.create_task(ending.wait())
    coming: asyncio.Task[News] | None = None
    try:
        while not ending.is_set():
            coming = coming or asyncio.create_task(_next(told))
            await asyncio.wait({coming, ended}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield b": still here\n\n"
                continue
            try:
                item = coming.result()
            except StopAsyncIteration:
                yield b"event: end\ndata: {}\n\n"
                return
            coming = None
            yield b"data: " + json.dumps(item).encode() + b"\n\n"
    finally:
        ended.cancel()
        if coming is not None:
            coming.cancel()
        await asyncio.gather(ended, *([coming] if coming else []), return_exceptions=True)
        await told.aclose()  # type: ignore[attr-defined]


async def _next(told: AsyncIterator[News]) -> News:
    return await anext(told)
