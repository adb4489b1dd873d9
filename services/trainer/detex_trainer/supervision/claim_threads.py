"""Threads for the job table alone.

A lease must be renewed in time. In the threads that all calls share, renewing could wait behind an object store that
does not answer.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ClaimThreads:
    """Runs blocking calls to the job table.

    Args:
        count: Threads.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="claims")

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The result of the call; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, functools.partial(call, *args, **kwargs))

    def close(self) -> None:
        """End the threads when their calls have ended."""
        self._pool.shutdown()
