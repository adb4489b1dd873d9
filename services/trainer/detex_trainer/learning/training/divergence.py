"""Notices a loss that is no number, or that has grown far beyond where it began."""

import math

from detex_trainer.domain.failures import DivergedError
from detex_trainer.learning.resumable import PartState

_DIVERGENCE_FACTOR = 4.0
_HEALTH_FACTOR = 2.0
_DIVERGENCE_STEPS = 20
_ADVICE = "{what}; lower the learning rates or raise the batch size, and submit the job again."


class DivergenceWatch:
    """Compares the smoothed loss with that of the first steps; a `Resumable`."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._smoothed = 0.0

    def check(self, step: int, loss: float) -> None:
        """Look at the loss of a step; raises DivergedError."""
        if not math.isfinite(loss):
            raise diverged(f"The loss of step {step} is not a finite number")
        if len(self._first) < _DIVERGENCE_STEPS:
            self._first.append(loss)
            self._smoothed = self._beginning
            return
        self._smoothed += (loss - self._smoothed) / _DIVERGENCE_STEPS
        if self._smoothed > _DIVERGENCE_FACTOR * self._beginning:
            raise diverged(f"The loss has grown from {self._beginning:.3g} to {self._smoothed:.3g} by step {step}")

    @property
    def is_healthy(self) -> bool:
        """Whether the loss is where one would want to come back to."""
        return not self._first or self._smoothed <= _HEALTH_FACTOR * self._beginning

    @property
    def _beginning(self) -> float:
        return sum(self._first) / len(self._first)

    def state(self) -> PartState:
        """See `Resumable`."""
        return PartState(values={"first": list(self._first), "smoothed": self._smoothed})

    def restore(self, state: PartState) -> None:
        """See `Resumable`."""
        self._first, self._smoothed = list(state.values["first"]), float(state.values["smoothed"])


def diverged(what: str) -> DivergedError:
    """The error with advice; `what` is a sentence without its full stop."""
    return DivergedError(_ADVICE.format(what=what))
