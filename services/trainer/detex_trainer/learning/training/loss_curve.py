"""The losses over the course of a training, in few points."""

import math
from collections.abc import Mapping
from typing import Any

from detex_trainer.learning.resumable import PartState
from detex_trainer.learning.training.run import TrainingRun
from detex_trainer.report.training_report import LossPoint

POINTS = 60


class LossCurve:
    """Means over equal spans of steps; a `StepListener` and `Resumable`."""

    def __init__(self, total_steps: int) -> None:
        """For a training of so many steps."""
        self._total_steps = total_steps
        self._span = math.ceil(total_steps / POINTS)
        self._points: list[LossPoint] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        """Count the losses of a step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss
        self._count += 1
        if self._count == self._span or run.step >= self._total_steps:
            means = {name: loss / self._count for name, loss in self._sums.items()}
            self._points.append(LossPoint(step=run.step, losses=means))
            self._sums, self._count = {}, 0

    def before_stop(self, run: TrainingRun) -> None:
        """Nothing is to be saved: the state goes with the run's."""

    @property
    def points(self) -> tuple[LossPoint, ...]:
        """What there is so far."""
        return tuple(self._points)

    def state(self) -> PartState:
        """See `Resumable`."""
        values: dict[str, Any] = {"points": [point.model_dump() for point in self._points]}
        return PartState(values=values | {"sums": dict(self._sums), "count": self._count})

    def restore(self, state: PartState) -> None:
        """See `Resumable`."""
        self._points = [LossPoint.model_validate(point) for point in state.values["points"]]
        self._sums, self._count = dict(state.values["sums"]), int(state.values["count"])
