"""The end of a process within a time, whatever in it does not come to an end."""

import asyncio
import logging
import os
import threading

LAST_WORDS_SECONDS = 15.0
"""What is left, after the grace of calls and jobs, for last writes to stores and databases."""

_log = logging.getLogger(__name__)


async def end_within(draining: asyncio.Event, seconds: float) -> None:
    """Wait until the process is asked to stop, and see to it that it does.

    Args:
        draining: Set when the process is asked to stop.
        seconds: How long it may take from then on; after that it ends at once, with status 1.
    """
    await draining.wait()
    # A thread, for the event loop may be what hangs; of the interpreter's own end, too, it waits for other threads.
    timer = threading.Timer(seconds, _end_now, (seconds,))
    timer.daemon = True
    timer.start()


def _end_now(seconds: float) -> None:
    _log.critical("no orderly end within %g seconds; what was not written by now is not written", seconds)
    logging.shutdown()
    os._exit(1)
