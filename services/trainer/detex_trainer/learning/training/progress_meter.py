"""Measures how fast a job goes: smoothed losses, steps per second, time left."""

import time
from collections import deque
from collections.abc import Callable, Mapping

from detex_trainer.domain.progress import JobPhase, JobProgress
from detex_trainer.learning.resumable import PartState

_SMOOTHING = 0.95
_WINDOW_STEPS = 40


class ProgressMeter:
    """Takes the losses of each step and tells the progress."""

    def __init__(self, total_steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_steps = total_steps
        self._clock = clock
        self._times: deque[float] = deque([clock()], maxlen=_WINDOW_STEPS + 1)
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._step = 0

    def add(self, losses: Mapping[str, float]) -> None:
        """Count a step with its losses."""
        self._step += 1
        self._times.append(self._clock())
        for name, loss in losses.items():
            self._sums[name] = _SMOOTHING * self._sums.get(name, 0.0) + (1 - _SMOOTHING) * loss
            self._weights[name] = _SMOOTHING * self._weights.get(name, 0.0) + 1 - _SMOOTHING

    def losses(self) -> dict[str, float]:
        """Exponential means over the last steps, without the usual bias towards 0 at the beginning."""
        return {name: self._sums[name] / self._weights[name] for name in self._sums}

    def state(self) -> PartState:
        """Steps and smoothed losses; what was measured of time is of no use elsewhere."""
        return PartState(values={"step": self._step, "sums": dict(self._sums), "weights": dict(self._weights)})

    def restore(self, state: PartState) -> None:
        """Go back to a state; speed is measured again."""
        self._step = int(state.values["step"])
        self._sums, self._weights = dict(state.values["sums"]), dict(state.values["weights"])
        self._times = deque([self._clock()], maxlen=_WINDOW_STEPS + 1)

    def progress(self) -> JobProgress:
        """The progress of the training phase."""
        seconds = self._times[-1] - self._times[0]
        speed = (len(self._times) - 1) / seconds if seconds > 0 else 0.0
        return JobProgress(
            phase=JobPhase.TRAINING,
            step=self._step,
            total_steps=self._total_steps,
            losses=self.losses(),
            steps_per_second=speed,
            time_left_seconds=(self._total_steps - self._step) / speed if speed else None,
        )
