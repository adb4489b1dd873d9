"""Calls that decode pictures, one after another: a file of some bytes may unpack to hundreds of megabytes."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class DecodingTurns:
    """Runs functions in threads, one at a time, in the order of their calls; for use within one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def run(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Wait for a turn, and run a function; a call that is cancelled keeps its turn until its thread has ended."""
        async with self._turn:
            running = asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait((running,))
                raise
