"""A circuit breaker before the object store: while it is unavailable, nobody waits for it."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from detex_core.errors import DetexError, UnavailableError
from detex_generator.metrics import GeneratorMetrics

Answer = TypeVar("Answer")

_logger = logging.getLogger(__name__)


class StoreBreaker:
    """Passes questions on while the object store answers, and refuses them at once for a while after it has not.

    A store that is unavailable costs whoever asks it seconds of waiting for a connection. After a question without an
    answer the next is passed on only when a delay has passed, then one at a time, and each further failure doubles the
    delay (Nygard, "Release It!", the pattern Circuit Breaker). Only UnavailableError counts: all else is an answer.
    And only where the store as a whole does not answer, which is asked after: an object that cannot be read is the
    affair of those who want it. Safe to use from several threads.
    """

    def __init__(
        self,
        shortest_seconds: float,
        longest_seconds: float,
        metrics: GeneratorMetrics,
        clock: Callable[[], float] = time.monotonic,
        probe: Callable[[], None] | None = None,
    ) -> None:
        """Begin closed.

        Args:
            shortest_seconds: Delay after the first failure.
            longest_seconds: Bound of the delay.
            metrics: Receives failures and refusals, and whether the store answers.
            clock: Seconds that never go back.
            probe: Raises UnavailableError where the store as a whole does not answer; None takes every question for
                such a probe.
        """
        self._clock = clock
        self._probe = probe
        self._shortest_seconds = shortest_seconds
        self._longest_seconds = longest_seconds
        self._metrics = metrics
        self._lock = threading.Lock()
        self._delay_seconds = 0.0  # 0 while the store answers
        self._next_try = 0.0  # of the clock
        self._trying = False

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """The answer to a question.

        Raises:
            UnavailableError: The store does not answer, or has not just before; tells when to ask again.
        """
        trying = self._enter()
        try:
            answer = question()
        except UnavailableError as error:
            if self._is_away():
                self._failed(error)
            else:
                self._answered()
            raise
        except BaseException:
            self._answered()
            raise
        else:
            self._answered()
            return answer
        finally:
            if trying:
                with self._lock:
                    self._trying = False

    def look(self) -> None:
        """Ask the store whether it answers, whether or not anybody wants something of it; for a watch."""
        try:
            if self._probe is not None:
                self._probe()
        except UnavailableError as error:
            self._failed(error)
        except DetexError:
            self._answered()
        else:
            self._answered()

    def _is_away(self) -> bool:
        if self._probe is None:
            return True
        try:
            self._probe()
        except UnavailableError:
            return True
        except DetexError:
            return False  # an answer
        return False

    def _enter(self) -> bool:
        """Whether this question is the one that tries a store that was unavailable."""
        with self._lock:
            if not self._delay_seconds:
                return False
            left = self._next_try - self._clock()
            if left > 0 or self._trying:
                self._metrics.store_refusals.inc()
                raise UnavailableError(
                    "The object store does not answer.",
                    reason="OBJECT_STORE_UNAVAILABLE",
                    retry_delay_seconds=max(left, self._shortest_seconds),
                )
            self._trying = True
            return True

    def _failed(self, error: UnavailableError) -> None:
        self._metrics.store_failures.inc()
        with self._lock:
            first = not self._delay_seconds
            now = self._clock()
            if first or now >= self._next_try:  # of many that failed together one counts
                doubled = 2 * self._delay_seconds or self._shortest_seconds
                self._delay_seconds = min(doubled, self._longest_seconds)
                self._next_try = now + self._delay_seconds
            self._metrics.store_up.set(0)
        if first:
            _logger.warning("The object store does not answer: %s", error.message)

    def _answered(self) -> None:
        with self._lock:
            was_away, self._delay_seconds = bool(self._delay_seconds), 0.0
            self._metrics.store_up.set(1)
        if was_away:
            _logger.info("The object store answers again")
