"""Threads that tenants share: one whose work takes long, or comes in hundreds, leaves some to the others."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from detex_core.fair_queue import FairQueue
from detex_core.tenancy import current_tenant

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class TenantThreads:
    """A pool of threads in which tenants take turns, and none has all; safe to use from several threads.

    A tenant may have three quarters of them, and one thread is left to others at least, where there are two or more.
    Work that waits for an object store or for memory takes as long as these like. In a plain pool, whoever asks for
    much of it holds all threads, and all others wait behind what it has queued.
    """

    def __init__(
        self, threads: int, name: str, *, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        """Nothing runs yet.

        Args:
            threads: Threads in all, 1 or more.
            name: What their names begin with.
            initializer: Called in each thread first.
            initargs: Its arguments.
        """
        self._pool = ThreadPoolExecutor(threads, name, initializer=initializer, initargs=initargs)
        self._of_tenant = max(1, threads - max(1, threads // 4))
        self._lock = threading.Lock()
        self._waiting: FairQueue[tuple[str, Future[Any], Callable[[], Any]]] = FairQueue()
        self._running: Counter[str] = Counter()
        self._held_up = 0  # turns that came while all who waited had all their threads

    def submit(self, tenant: str, work: Callable[[], Result]) -> "Future[Result]":
        """Have something done for a tenant; raises RuntimeError after `shutdown`."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append(tenant, (tenant, future, work))
        try:
            self._pool.submit(self._take_turn)
        except RuntimeError:
            future.cancel()
            raise
        return future

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Have something done for the tenant of this call, in its context, and wait for it in an event loop."""
        context, work = copy_context(), partial(function, *args, **kwargs)
        return await asyncio.wrap_future(self.submit(current_tenant(), lambda: context.run(work)))

    def shutdown(self) -> None:
        """Begin nothing further; what runs is ended, and waited for at the end of the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            left = self._waiting.remove(lambda _: True)
        for _, future, _ in left:
            future.cancel()

    def _take_turn(self) -> None:
        with self._lock:
            next_one = self._waiting.take(lambda tenant: self._running[tenant] < self._of_tenant)
            if next_one is None:
                self._held_up += len(self._waiting) > 0
                return
            tenant, future, work = next_one
            self._running[tenant] += 1
        try:
            if future.set_running_or_notify_cancel():
                self._do(future, work)
        finally:
            with self._lock:
                self._running[tenant] -= 1
                if not self._running[tenant]:
                    del self._running[tenant]
                is_due = self._held_up > 0
                self._held_up -= is_due
            if is_due:
                with suppress(RuntimeError):  # shut down meanwhile
                    self._pool.submit(self._take_turn)

    @staticmethod
    def _do(future: "Future[Result]", work: Callable[[], Result]) -> None:
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
