"""What the trainer cannot work without: its job table and the object store."""

import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from detex_core.errors import DetexError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LABELS = ("dependency",)


class DependencyMetrics:
    """Whether dependencies answer, how fast, and how often they did not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge(
            "detex_trainer_dependency_up",
            "1 while the database or the object store answers the look of the readiness check, 0 after it has not.",
            _LABELS,
            registry=registry,
        )
        self.seconds = Histogram(
            "detex_trainer_dependency_seconds",
            "Time that a look of the readiness check at a dependency took, answered or not.",
            _LABELS,
            buckets=_SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "detex_trainer_dependency_failures_total",
            "Looks of the readiness check that a dependency did not answer.",
            _LABELS,
            registry=registry,
        )


class Dependencies:
    """Looks at each dependency by its own check."""

    def __init__(self, checks: Mapping[str, Callable[[], None]], registry: CollectorRegistry) -> None:
        """Nothing is looked at yet.

        Args:
            checks: By name, for labels; each raises DetexError where the dependency does not answer.
            registry: Where the metrics go; every dependency counts as down until the first look.
        """
        self._checks = dict(checks)
        self._metrics = DependencyMetrics(registry)
        for name in self._checks:
            self._metrics.up.labels(name).set(0)
            self._metrics.seconds.labels(name)
            self._metrics.failures.labels(name)

    def check(self) -> None:
        """Look at all of them, whatever comes of the first.

        Raises:
            DetexError: That of the first that does not answer.
        """
        errors = [error for name in self._checks if (error := self._look(name)) is not None]
        if errors:
            raise errors[0]

    def _look(self, name: str) -> DetexError | None:
        begin = time.monotonic()
        answers = False
        try:
            self._checks[name]()
            answers = True
        except DetexError as error:
            return error
        finally:
            self._metrics.seconds.labels(name).observe(time.monotonic() - begin)
            self._metrics.up.labels(name).set(answers)
            if not answers:
                self._metrics.failures.labels(name).inc()
        return None
