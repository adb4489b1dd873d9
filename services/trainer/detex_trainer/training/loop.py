"""The training loop: the same for every method, and for one concept as for many that share their passes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.failures import DivergedError, TrainingStopped
from detex_trainer.methods.learner import PackableLearner
from detex_trainer.methods.unet_pass import run_pass
from detex_trainer.training.run import TrainingRun

_log = logging.getLogger(__name__)


class StepListener(Protocol):
    """Is told of the steps of a run, and may keep its state."""

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        """A step is done."""

    def before_stop(self, run: TrainingRun) -> None:
        """The run is about to be left as it is, because it was asked to stop."""


def train(run: TrainingRun, listeners: Sequence[StepListener], should_stop: Callable[[], bool]) -> None:
    """Train a concept for the steps that are left.

    Args:
        run: What is trained.
        listeners: Told of each step, in their order.
        should_stop: Asked before each step.

    Raises:
        TrainingStopped: `should_stop` said so.
        DivergedError: A loss or a weight is not finite, or the loss stays far above where it began, also after going
            back with lower learning rates.
    """
    pack = TrainingPack()
    pack.add(run, listeners)
    while not run.is_finished:
        if should_stop():
            pack.leave(run)
            raise TrainingStopped
        failures = pack.advance()
        if run in failures:
            raise failures[run]


class TrainingPack:
    """Runs that advance together.

    Those whose learners are packable share one pass of the base model, forward and backward; each keeps its own words,
    deltas, optimiser, chance and step count, so what comes of one does not depend on the others (but for the rounding
    of sums whose order depends on the size of a batch).
    """

    def __init__(self, base_model: BaseModel | None = None) -> None:
        """Without runs; the base model is needed for more than one, and is that of all."""
        self._base_model = base_model
        self._unet = None if base_model is None else KeyValueUNet(base_model.unet, base_model.pixels_per_latent)
        self._runs: dict[TrainingRun, Sequence[StepListener]] = {}

    @property
    def runs(self) -> tuple[TrainingRun, ...]:
        """Those that are not finished."""
        return tuple(self._runs)

    def add(self, run: TrainingRun, listeners: Sequence[StepListener]) -> None:
        """Let a run take part from the next step on; one that is finished already does not."""
        if not run.is_finished:
            self._runs[run] = listeners

    def leave(self, run: TrainingRun) -> None:
        """Take out a run that was asked to stop."""
        for listener in self._runs.pop(run):
            listener.before_stop(run)

    def advance(self) -> dict[TrainingRun, DivergedError]:
        """Do one step of every run; those that are finished leave, and those that failed, which are returned."""
        runs = list(self._runs)
        drawn = self._losses(runs)
        values = [_values(losses) for losses in drawn]
        failures: dict[TrainingRun, DivergedError] = {}
        good: list[tuple[TrainingRun, dict[str, float], Tensor]] = []
        bad: list[tuple[TrainingRun, DivergedError]] = []
        for run, losses, value in zip(runs, drawn, values, strict=True):
            try:
                run.check(value["total"])
                good.append((run, value, losses["total"]))
            except DivergedError as error:
                bad.append((run, error))
        if good:
            torch.autograd.backward([run.scaled(total) for run, _, total in good])
        # Only now: going back changes weights that the shared pass still needs for its backward half.
        for run, cause in bad:
            self._go_back(run, cause, failures)
        for run, value, _ in good:
            try:
                run.update()
            except DivergedError as error:
                self._go_back(run, error, failures)
                continue
            for listener in self._runs[run]:
                listener.after_step(run, value)
            if run.is_finished:
                del self._runs[run]
        return failures

    def _losses(self, runs: Sequence[TrainingRun]) -> list[Mapping[str, Tensor]]:
        """The losses of the next step of each run."""
        learners = [run.learner for run in runs]
        packable = [learner for learner in learners if isinstance(learner, PackableLearner)]
        if self._base_model is None or self._unet is None or len(runs) == 1 or len(packable) < len(learners):
            return [run.learner.losses(*run.draw(), run.generator) for run in runs]
        steps = [learner.draw_step(*run.draw(), run.generator) for learner, run in zip(packable, runs, strict=True)]
        outputs = run_pass(self._base_model, self._unet, [step.rows for step in steps])
        return [
            learner.step_losses(step, output) for learner, step, output in zip(packable, steps, outputs, strict=True)
        ]

    def _go_back(self, run: TrainingRun, error: DivergedError, failures: dict[TrainingRun, DivergedError]) -> None:
        step = run.step
        try:
            run.go_back(error)
        except DivergedError as final:
            failures[run] = final
            del self._runs[run]
            return
        _log.warning("%s; going back from step %d to %d with lower learning rates", error.message, step, run.step)


def _values(losses: Mapping[str, Tensor]) -> dict[str, float]:
    # One transfer: on a GPU each would wait for all that was asked of it.
    return dict(zip(losses, torch.stack([loss.detach().float() for loss in losses.values()]).tolist(), strict=True))
