"""The training loop: the same for every method, and for one concept as for many that share their passes."""

import gc
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from detex_core.errors import DetexError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.domain.failures import DivergedError, TrainingStopped, is_out_of_memory, spoils_worker
from detex_trainer.learning.methods.learner import PackableLearner
from detex_trainer.learning.methods.unet_pass import PassOutput, PassRows, run_pass
from detex_trainer.learning.training.run import TrainingRun

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
        self._is_apart = False
        self._is_short_of_memory = False

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

    def discard(self, run: TrainingRun) -> None:
        """Take out a run that nothing is kept of."""
        self._runs.pop(run, None)

    def advance(self) -> dict[TrainingRun, Exception]:
        """Do one step of every run; those that are finished leave, and those that failed, which are returned.

        What one run brings about is that run's failure alone. Where the pass that they share fails, each makes its own.

        Raises:
            Exception: Nobody can continue, and nobody in particular is to blame.
        """
        failures: dict[TrainingRun, Exception] = {}
        shares = self._shares_passes()
        drawn: list[_DrawnStep] = []
        for run in list(self._runs):
            with self._blaming(run, failures):
                drawn.append(_DrawnStep(run, shares))
        losses = None
        if shares and len(drawn) > 1 and not self._is_apart:
            losses = self._shared_pass(drawn)
        if losses is None:
            losses = self._passes_apart(drawn, failures)
        # Only now: going back changes weights that a shared pass still needs for its backward half.
        for run, value in losses.items():
            with self._blaming(run, failures):
                self._finish_step(run, value)
        return failures

    @property
    def is_short_of_memory(self) -> bool:
        """Whether memory did not suffice for the pass that all runs share."""
        return self._is_short_of_memory

    def relieve(self) -> None:
        """Some runs have left: try to share passes again."""
        self._is_apart = self._is_short_of_memory = False

    def _shares_passes(self) -> bool:
        learners = [run.learner for run in self._runs]
        return self._unet is not None and len(learners) > 1 and all(isinstance(e, PackableLearner) for e in learners)

    def _shared_pass(self, drawn: Sequence["_DrawnStep"]) -> "dict[TrainingRun, _StepLoss] | None":
        """One pass for all, forward and backward; None where it failed."""
        assert self._base_model is not None and self._unet is not None  # noqa: S101, PT018 - else nothing is shared
        try:
            outputs = run_pass(self._base_model, self._unet, [each.rows for each in drawn])
            seen = {each.run: each.losses_of(output) for each, output in zip(drawn, outputs, strict=True)}
            steps = {each.run: each.checked(seen[each.run]) for each in drawn}
            totals = [run.scaled(seen[run]["total"]) for run, step in steps.items() if step.error is None]
            if totals:
                torch.autograd.backward(totals)
        except Exception as error:
            if spoils_worker(error):
                raise
            self._is_apart = True
            self._is_short_of_memory = is_out_of_memory(error)
            _log.warning("the pass of %d jobs failed; each makes its own", len(drawn), exc_info=True)
        else:
            return steps
        # Here, where the error and all that its frames held on to are gone.
        for each in drawn:
            each.run.forget_gradients()
        _release_memory()
        return None

    def _passes_apart(
        self, drawn: Sequence["_DrawnStep"], failures: dict[TrainingRun, Exception]
    ) -> "dict[TrainingRun, _StepLoss]":
        """A pass for each; in `failures` those that failed."""
        steps: dict[TrainingRun, _StepLoss] = {}
        for each in drawn:
            with self._blaming(each.run, failures):
                losses = each.losses(self._base_model, self._unet)
                step = each.checked(losses)
                if step.error is None:
                    torch.autograd.backward([each.run.scaled(losses["total"])])
                steps[each.run] = step
        unlike = [error for error in failures.values() if not isinstance(error, DetexError)]
        if len(drawn) > 1 and len(unlike) == len(drawn):
            raise unlike[0]
        return steps

    def _finish_step(self, run: TrainingRun, step: "_StepLoss") -> None:
        if step.error is not None:
            self._go_back(run, step.error)
            return
        try:
            run.update()
        except DivergedError as error:
            self._go_back(run, error)
            return
        for listener in self._runs[run]:
            listener.after_step(run, step.values)
        if run.is_finished:
            del self._runs[run]

    @contextmanager
    def _blaming(self, run: TrainingRun, failures: dict[TrainingRun, Exception]) -> Iterator[None]:
        """Whatever goes wrong here is the failure of a run, which leaves."""
        try:
            yield
        except Exception as error:
            if spoils_worker(error):
                raise
            traceback.clear_frames(error.__traceback__)  # which hold on to all that the step has computed
            failures[run] = error
            self._runs.pop(run, None)
            run.forget_gradients()

    def _go_back(self, run: TrainingRun, error: DivergedError) -> None:
        step = run.step
        run.go_back(error)
        _log.warning("%s; going back from step %d to %d with lower learning rates", error.message, step, run.step)


@dataclass(frozen=True)
class _StepLoss:
    """Losses of a step as numbers, and what the run says of them."""

    values: dict[str, float]
    error: DivergedError | None


class _DrawnStep:
    """A step whose chance has been drawn, before the base model has seen it."""

    def __init__(self, run: TrainingRun, is_shared: bool) -> None:
        self.run = run
        self._batch, self._noise = run.draw()
        self._learner = run.learner
        self._step: Any = None
        self._checked: _StepLoss | None = None
        if is_shared and isinstance(run.learner, PackableLearner):
            self._step = run.learner.draw_step(self._batch, self._noise, run.generator)

    @property
    def rows(self) -> PassRows:
        """What is asked of the base model; for steps that are shared."""
        rows: PassRows = self._step.rows
        return rows

    def losses_of(self, output: PassOutput) -> Mapping[str, Tensor]:
        """The losses by what the base model made of `rows`."""
        assert isinstance(self._learner, PackableLearner)  # noqa: S101 - it gave rows
        return self._learner.step_losses(self._step, output)

    def losses(self, base_model: BaseModel | None, unet: KeyValueUNet | None) -> Mapping[str, Tensor]:
        """The losses after a pass of its own."""
        if self._step is None or base_model is None or unet is None:
            return self._learner.losses(self._batch, self._noise, self.run.generator)
        return self.losses_of(run_pass(base_model, unet, [self.rows])[0])

    def checked(self, losses: Mapping[str, Tensor]) -> _StepLoss:
        """What the run says of the losses; asked once, for it counts them."""
        if self._checked is None:
            values = _values(losses)
            try:
                self.run.check(values["total"])
                self._checked = _StepLoss(values, None)
            except DivergedError as error:
                self._checked = _StepLoss(values, error)
        return self._checked


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _values(losses: Mapping[str, Tensor]) -> dict[str, float]:
    # One transfer: on a GPU each would wait for all that was asked of it.
    return dict(zip(losses, torch.stack([loss.detach().float() for loss in losses.values()]).tolist(), strict=True))
