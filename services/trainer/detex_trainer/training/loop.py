"""The training loop: the same for every method.

Legend: B photos of a step.
"""

import math
from collections.abc import Callable, Mapping

import torch

from detex_diffusion.noise_schedule import NoiseSchedule
from detex_trainer.dataset import PhotoSet, photo_batches
from detex_trainer.failures import DivergedError, TrainingStopped
from detex_trainer.hyperparameters import Hyperparameters
from detex_trainer.methods.learner import Learner, StepNoise
from detex_trainer.training.optimizer import ConceptOptimizer

_DIVERGENCE_FACTOR = 4.0
_DIVERGENCE_STEPS = 20


def train(
    learner: Learner,
    photo_set: PhotoSet,
    noise_schedule: NoiseSchedule,
    hyperparameters: Hyperparameters,
    generator: torch.Generator,
    after_step: Callable[[int, Mapping[str, float]], None],
    should_stop: Callable[[], bool],
) -> None:
    """Train for all steps.

    Args:
        learner: What is trained.
        photo_set: What it is trained on.
        noise_schedule: Of the base model.
        hyperparameters: Steps and batch size.
        generator: CPU generator, source of everything random here.
        after_step: Called after each step with the steps done and the losses.
        should_stop: Asked before each step.

    Raises:
        TrainingStopped: `should_stop` said so.
        DivergedError: A loss is not finite, or stays far above where it began.
    """
    optimizer = ConceptOptimizer(learner.parameter_groups(), hyperparameters.steps)
    batches = photo_batches(photo_set, hyperparameters.batch_size, generator)
    watch = _DivergenceWatch()
    for step in range(1, hyperparameters.steps + 1):
        if should_stop():
            raise TrainingStopped
        batch = next(batches)
        noise = draw_noise(batch.latents, noise_schedule, generator)
        losses = learner.losses(batch, noise, generator)
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        watch.check(step, values["total"])
        optimizer.step(losses["total"])
        after_step(step, values)
    if not all(bool(torch.isfinite(p).all()) for group in learner.parameter_groups() for p in group.parameters):
        raise DivergedError(_ADVICE.format(what="A trained weight is no longer a finite number"))


def draw_noise(latents: torch.Tensor, noise_schedule: NoiseSchedule, generator: torch.Generator) -> StepNoise:
    """Noise and denoising steps for latents (B, C, h, w).

    The denoising steps are spread evenly over the schedule, one in each of B equal parts, which makes the loss of a
    small batch far steadier than independent draws.
    """
    rows = latents.shape[0]
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    parts = torch.randperm(rows, generator=generator)
    places = (parts + torch.rand(rows, generator=generator)) / rows
    last = noise_schedule.training_timesteps - 1
    timesteps = (places * noise_schedule.training_timesteps).long().clamp_max(last)
    return StepNoise(noise, timesteps.to(latents.device))


_ADVICE = "{what}; lower the learning rates or raise the batch size, and submit the job again."


class _DivergenceWatch:
    """Compares the smoothed loss with that of the first steps."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._smoothed = 0.0

    def check(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(_ADVICE.format(what=f"The loss of step {step} is not a finite number"))
        if len(self._first) < _DIVERGENCE_STEPS:
            self._first.append(loss)
            self._smoothed = sum(self._first) / len(self._first)
            return
        self._smoothed += (loss - self._smoothed) / _DIVERGENCE_STEPS
        beginning = sum(self._first) / len(self._first)
        if self._smoothed > _DIVERGENCE_FACTOR * beginning:
            what = f"The loss has grown from {beginning:.3g} to {self._smoothed:.3g} by step {step}"
            raise DivergedError(_ADVICE.format(what=what))
