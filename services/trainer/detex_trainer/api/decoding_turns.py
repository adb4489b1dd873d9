"""Calls that decode pictures: threads of their own, of which no tenant takes more than its share."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from detex_core.errors import ResourceExhaustedError
from detex_core.tenancy import current_tenant

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

THREADS = 8
THREADS_PER_TENANT = 2
WAITING_PER_TENANT = 32
_RETRY_SECONDS = 1.0


class DecodingTurns:
    """Runs functions in threads, a few of each tenant at a time in the order of their calls; for one event loop.

    How much memory they take together is not bounded here, but where they take it.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "decoding")
        self._calls: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def run(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Wait for a turn, and run a function; a call that is cancelled keeps its turn until its thread has ended.

        Raises:
            ResourceExhaustedError: Too many calls of the tenant wait.
        """
        tenant = current_tenant()
        if self._calls[tenant] >= WAITING_PER_TENANT:
            raise ResourceExhaustedError(
                f"This tenant has {WAITING_PER_TENANT} picture-decoding calls running or waiting, the maximum; try "
                "again in a moment.",
                reason="TOO_MANY_CALLS",
                retry_delay_seconds=_RETRY_SECONDS,
            )
        self._calls[tenant] += 1
        turn = self._turns.setdefault(tenant, asyncio.Semaphore(THREADS_PER_TENANT))
        try:
            async with turn:
                return await self._apart(partial(function, *args, **kwargs))
        finally:
            self._calls[tenant] -= 1
            if not self._calls[tenant]:
                del self._calls[tenant], self._turns[tenant]

    async def _apart(self, work: Callable[[], _Result]) -> _Result:
        context = copy_context()
        running = asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait((running,))
            running.exception()  # nobody is left to hear of it
            raise
