"""Prior preservation: what keeps the base model's idea of the class while a concept is learned.

With images (DreamBooth, Ruiz et al. 2023, section 3.2; Custom Diffusion, Kumari et al. 2023, section 3.3): pictures of
the class that the base model drew are learned under the class word, beside the photos. With a prompt alone: on the
photos of the step, the prediction under the class word stays the frozen base model's, which is the target; that takes
one more pass of the base model and no pictures.

Legend: B photos of a step, K pictures of the class, C latent channels, (h, h) latent size, T text tokens, E text width.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_trainer.dataset import Batch
from detex_trainer.methods.learner import ConceptLearner, ParameterGroup, StepNoise
from detex_trainer.methods.plain_prediction import PlainPrediction
from detex_trainer.prompts import class_prompt


class Prior(Protocol):
    """What a learner has to preserve."""

    def loss(
        self,
        trained: PlainPrediction,
        deltas: KeyValueDeltas,
        batch: Batch,
        noise: StepNoise,
        generator: torch.Generator,
    ) -> Tensor:
        """The loss of a step, a scalar.

        Args:
            trained: Predicts under the class word with what is trained.
            deltas: Of keys and values, as they stand; empty where none are trained.
            batch: Photos of the step.
            noise: Drawn for them.
            generator: Source of what is drawn for this loss alone.
        """


class PriorImages:
    """Pictures of the class are denoised under the class word."""

    def __init__(self, base_model: BaseModel, latents: Tensor) -> None:
        """`latents`: (K, C, h, h) of pictures of the class."""
        self._schedule = base_model.noise_schedule
        self._latents = latents

    def loss(
        self,
        trained: PlainPrediction,
        deltas: KeyValueDeltas,
        batch: Batch,
        noise: StepNoise,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean squared error on as many pictures as the step has photos, at the same denoising steps."""
        drawn = torch.randint(0, len(self._latents), (batch.latents.shape[0],), generator=generator)
        latents = self._latents[drawn.to(self._latents.device)]
        fresh = torch.randn(latents.shape, generator=generator).to(latents.device)
        prediction = trained(self._schedule.add_noise(latents, fresh, noise.timesteps), noise.timesteps, deltas)
        return functional.mse_loss(prediction, self._schedule.target(latents, fresh, noise.timesteps))


class PriorPrompt:
    """The prediction under the class word stays the base model's."""

    def __init__(self, base_model: BaseModel, class_word: str) -> None:
        """`base_model`: The frozen one."""
        self._schedule = base_model.noise_schedule
        self._frozen = PlainPrediction(base_model, class_prompt(class_word))

    def loss(
        self,
        trained: PlainPrediction,
        deltas: KeyValueDeltas,
        batch: Batch,
        noise: StepNoise,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean squared difference of the two predictions on the noisy photos."""
        noisy = self._schedule.add_noise(batch.latents, noise.noise, noise.timesteps)
        with torch.no_grad():
            target = self._frozen(noisy, noise.timesteps, {})
        return functional.mse_loss(trained(noisy, noise.timesteps, deltas), target)


class PriorPreservingLearner:
    """A learner with prior preservation; see `Learner`. It shares no pass with other learners."""

    def __init__(self, learner: ConceptLearner, prior: Prior, weight: float, class_word: str) -> None:
        """Wrap a learner, whose total loss grows by `weight` times that of the prior."""
        self._learner = learner
        self._prior = prior
        self._weight = weight
        self._trained = PlainPrediction(learner.base_model, class_prompt(class_word))

    @property
    def base_model(self) -> BaseModel:
        """Of the learner."""
        return self._learner.base_model

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Those of the learner."""
        return self._learner.parameter_groups()

    def losses(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Those of the learner and `prior`."""
        losses = dict(self._learner.losses(batch, noise, generator))
        losses["prior"] = self._prior.loss(self._trained, self.key_value_deltas(), batch, noise, generator)
        losses["total"] = losses["total"] + self._weight * losses["prior"]
        return losses

    def key_value_deltas(self) -> KeyValueDeltas:
        """Those of the learner."""
        return self._learner.key_value_deltas()

    def measure(self, batch: Batch, noise: StepNoise) -> Mapping[str, float]:
        """As the learner's."""
        return self._learner.measure(batch, noise)

    def subject_attention(self, batch: Batch, noise: StepNoise) -> Tensor:
        """As the learner's."""
        return self._learner.subject_attention(batch, noise)

    def concept(self) -> Concept:
        """The concept as it stands."""
        return self._learner.concept()

    def delta_share(self) -> float:
        """As the learner's."""
        return self._learner.delta_share()

    def first_words(self) -> Mapping[str, Sequence[str]]:
        """As the learner's."""
        return self._learner.first_words()
