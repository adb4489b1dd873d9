"""Publication that waits for room: a concept that has been trained is not thrown away because a disk is full."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from detex_core.errors import DetexError, PermissionDeniedError, UnavailableError
from detex_trainer.domain.failures import TrainingStopped

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 0.5

_log = logging.getLogger(__name__)


def may_pass(error: DetexError) -> bool:
    """Whether publishing can succeed later: the store is full, read-only or away, which operators fix."""
    return isinstance(error, UnavailableError | PermissionDeniedError) or error.reason == "STORAGE_FULL"


def publish_when_possible(
    publish: Callable[[], Result],
    should_stop: Callable[[], bool],
    on_wait: Callable[[DetexError], None],
    *,
    patience_seconds: float,
    first_pause_seconds: float = FIRST_PAUSE_SECONDS,
) -> Result:
    """Publish; again, after growing pauses, as long as it fails for something that may pass.

    Args:
        publish: Publishes, all or nothing.
        should_stop: Asked twice a second while it waits.
        on_wait: Told what is waited for, before each pause.
        patience_seconds: After which the error is raised.
        first_pause_seconds: Before the second try; doubled at each further one.

    Raises:
        TrainingStopped: `should_stop` said so.
        DetexError: As `publish`.
    """
    end, pause = time.monotonic() + patience_seconds, first_pause_seconds
    while True:
        try:
            return publish()
        except DetexError as error:
            if not may_pass(error) or time.monotonic() >= end:
                raise
            _log.warning("what was trained is not published yet: %s", error.message)
            on_wait(error)
        wake = time.monotonic() + pause
        while (left := wake - time.monotonic()) > 0:
            if should_stop():
                raise TrainingStopped
            time.sleep(min(left, _LOOK_SECONDS))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
