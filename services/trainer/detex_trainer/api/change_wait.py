"""Calls that meet a change of the training set that they need wait for its end, without holding a thread."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from detex_core.errors import AbortedError
from detex_trainer.jobs import TRAINING_SET_CHANGING

_LONGEST_SECONDS = 20.0
_LOOK_SECONDS = 0.1

_Result = TypeVar("_Result")


async def after_changes(call: Callable[[], Awaitable[_Result]]) -> _Result:
    """Call again as long as another call changes the training set, for up to 20 seconds.

    Raises:
        AbortedError: It is still being changed (reason `TRAINING_SET_CHANGING`).
    """
    deadline = time.monotonic() + _LONGEST_SECONDS
    while True:
        try:
            return await call()
        except AbortedError as error:
            if error.reason != TRAINING_SET_CHANGING or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_LOOK_SECONDS)
