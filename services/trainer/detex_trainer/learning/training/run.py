"""One concept's training, step by step: all that changes, and the way back to where it was.

Legend: B photos of a step.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from detex_diffusion.noise_schedule import NoiseSchedule
from detex_trainer.domain.failures import DivergedError
from detex_trainer.domain.hyperparameters import Hyperparameters
from detex_trainer.learning.methods.learner import Learner, StepNoise
from detex_trainer.learning.photos.dataset import Batch, PhotoBatches, PhotoSet
from detex_trainer.learning.resumable import PartState, Resumable, RunState
from detex_trainer.learning.training.divergence import DivergenceWatch, diverged
from detex_trainer.learning.training.optimizer import ConceptOptimizer
from detex_trainer.learning.training.state import Chance, Weights

MAX_RETURNS = 2
RETURN_RATE_SCALE = 0.3


class TrainingRun:
    """What is trained, on what, by which chance, and how far it has come.

    Attributes:
        learner: What is trained.
        photo_set: What it is trained on.
        generator: CPU generator, source of everything random from here on.
        step: Steps done.
        steps: Steps in all.
        returns: How often it has gone back to an earlier state because it diverged.
    """

    def __init__(
        self,
        learner: Learner,
        photo_set: PhotoSet,
        noise_schedule: NoiseSchedule,
        hyperparameters: Hyperparameters,
        generator: torch.Generator,
        parts: Mapping[str, Resumable] | None = None,
        *,
        scales_losses: bool = False,
    ) -> None:
        """Before the first step.

        Args:
            learner: What is trained; where it is a `Resumable` itself, its state is kept beside that of its weights.
            photo_set: What it is trained on.
            noise_schedule: Of the base model.
            hyperparameters: Steps, batch size and learning rates.
            generator: CPU generator, already used to make the learner.
            parts: Further parts that change from step to step, by name.
            scales_losses: Whether the base model computes in float16, see `ConceptOptimizer`.
        """
        self.learner = learner
        self.photo_set = photo_set
        self.generator = generator
        self.steps = hyperparameters.steps
        self.step = 0
        self.returns = 0
        self._noise_schedule = noise_schedule
        self._weights = Weights(learner.parameter_groups())
        self._optimizer = ConceptOptimizer(
            learner.parameter_groups(), hyperparameters.steps, scales_losses=scales_losses
        )
        self._batches = PhotoBatches(photo_set, hyperparameters.batch_size, generator)
        self._watch = DivergenceWatch()
        self._parts: dict[str, Resumable] = {
            "weights": self._weights,
            "optimizer": self._optimizer,
            "photos": self._batches,
            "chance": Chance(generator),
            "divergence": self._watch,
            **({"learner": learner} if isinstance(learner, Resumable) else {}),
            **(parts or {}),
        }
        self._good = self.state()

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def draw(self) -> tuple[Batch, StepNoise]:
        """Photos of the next step and noise for them."""
        self._optimizer.zero_grad()
        batch = next(self._batches)
        return batch, draw_noise(batch.latents, self._noise_schedule, self.generator)

    def forget_gradients(self) -> None:
        """Undo the backward half of the step that was drawn, as far as it has come."""
        self._optimizer.zero_grad()

    def check(self, loss: float) -> None:
        """Look at the total loss of the step that was drawn; raises DivergedError."""
        self._watch.check(self.step + 1, loss)

    def scaled(self, loss: Tensor) -> Tensor:
        """What `backward` is to be called on for the total loss of the step that was drawn."""
        return self._optimizer.scaled(loss)

    def update(self) -> None:
        """End the step that was drawn, by the gradients of its loss.

        Raises:
            DivergedError: All steps are done, and a weight is no finite number.
        """
        self._optimizer.update()
        self.step += 1
        if self.is_finished and not self._weights.are_finite():
            raise diverged("A trained weight is no longer a finite number")

    def gradient_norm(self) -> float:
        """Norm of all gradients of the last step before they were clipped; 0 before the first. Waits for the GPU."""
        norms = self._optimizer.gradient_norms
        return float(torch.stack([norm.detach().float().cpu() for norm in norms]).norm()) if norms else 0.0

    def state(self) -> RunState:
        """All that changes from step to step; shares no memory with it."""
        own = PartState(values={"step": self.step, "returns": self.returns})
        return {"run": own, **{name: part.state() for name, part in self._parts.items()}}

    def restore(self, state: RunState) -> None:
        """Go on from a state of a run that was constructed alike."""
        self._go_to(state)
        self._good = state

    def keep_as_good(self) -> RunState | None:
        """The state as it is, to come back to after a divergence; None where the loss does not look well."""
        if not (self._watch.is_healthy and self._weights.are_finite()):
            return None
        self._good = self.state()
        return self._good

    def go_back(self, error: DivergedError) -> None:
        """Go back to the last good state and on with lower learning rates.

        Raises:
            DivergedError: It has gone back as often as it may.
        """
        if self.returns >= MAX_RETURNS:
            raise DivergedError(
                f"{error.message} Going back {MAX_RETURNS} times and on with lower learning rates has not helped."
            ) from error
        returns = self.returns + 1
        self._go_to(self._good)
        self.returns = returns
        self._optimizer.rate_scale = RETURN_RATE_SCALE**returns

    def _go_to(self, state: RunState) -> None:
        for name, part in self._parts.items():
            part.restore(state[name])
        own = state["run"].values
        self.step, self.returns = int(own["step"]), int(own["returns"])


def draw_noise(latents: Tensor, noise_schedule: NoiseSchedule, generator: torch.Generator) -> StepNoise:
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
