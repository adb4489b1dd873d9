"""Prior preservation: what keeps the base model's idea of the class while a concept is learned.

With images (DreamBooth, Ruiz et al. 2023, section 3.2; Custom Diffusion, Kumari et al. 2023, section 3.3): pictures of
the class that the base model drew are learned under the class word, beside the photos. With a prompt alone: on the
photos of the step, the prediction under the class word stays the frozen base model's, which is the target; that takes
one more pass of the base model and no pictures.

Legend: B photos of a step, K pictures of the class, C latent channels, (h, h) latent size, T text tokens, E text width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.domain.prompts import class_prompt
from detex_trainer.learning.methods.learner import ConceptLearner, FirstWords, ParameterGroup, StepNoise
from detex_trainer.learning.methods.plain_prediction import PlainPrediction
from detex_trainer.learning.methods.unet_pass import PassOutput, PassRows, run_pass
from detex_trainer.learning.methods.word_learner import WordLearner
from detex_trainer.learning.methods.word_step import WordStep
from detex_trainer.learning.photos.dataset import Batch


@dataclass(frozen=True, eq=False)
class PriorStep:
    """What is to be predicted under the class word in a step.

    Attributes:
        latents: (B, C, h, h) with noise.
        timesteps: (B,) int64.
        target: (B, C, h, h).
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor

    def loss(self, prediction: Tensor) -> Tensor:
        """Mean squared error of a prediction (B, C, h, h) under the class word, a scalar."""
        return functional.mse_loss(prediction, self.target)


class Prior(Protocol):
    """What a learner has to preserve."""

    def draw(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> PriorStep:
        """As many rows as the step has photos.

        Args:
            batch: Photos of the step.
            noise: Drawn for them.
            generator: Source of what is drawn for the prior alone.
        """


class PriorImages:
    """Pictures of the class are denoised under the class word."""

    def __init__(self, base_model: BaseModel, latents: Tensor) -> None:
        """`latents`: (K, C, h, h) of pictures of the class."""
        self._schedule = base_model.noise_schedule
        self._latents = latents

    def draw(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> PriorStep:
        """Pictures at the denoising steps of the photos, each with noise of its own."""
        drawn = torch.randint(0, len(self._latents), (batch.latents.shape[0],), generator=generator)
        latents = self._latents[drawn.to(self._latents.device)]
        fresh = torch.randn(latents.shape, generator=generator).to(latents.device)
        noisy = self._schedule.add_noise(latents, fresh, noise.timesteps)
        return PriorStep(noisy, noise.timesteps, self._schedule.target(latents, fresh, noise.timesteps))


class PriorPrompt:
    """The prediction under the class word stays the base model's."""

    def __init__(self, base_model: BaseModel, class_word: str) -> None:
        """`base_model`: The frozen one."""
        self._schedule = base_model.noise_schedule
        self._frozen = PlainPrediction(base_model, class_prompt(class_word))

    def draw(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> PriorStep:
        """The noisy photos themselves; their target takes a pass of the base model without gradients."""
        noisy = self._schedule.add_noise(batch.latents, noise.noise, noise.timesteps)
        with torch.no_grad():
            target = self._frozen(noisy, noise.timesteps, {})
        return PriorStep(noisy, noise.timesteps, target)


class PriorPreservingLearner:
    """A learner with prior preservation, which takes a pass of its own; see `Learner`."""

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
        losses = self._learner.losses(batch, noise, generator)
        step = self._prior.draw(batch, noise, generator)
        return self._with_prior(losses, step.loss(self._trained(step.latents, step.timesteps, self.key_value_deltas())))

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

    def first_words(self) -> FirstWords:
        """As the learner's."""
        return self._learner.first_words()

    def _with_prior(self, losses: Mapping[str, Tensor], prior: Tensor) -> dict[str, Tensor]:
        return {**losses, "prior": prior, "total": losses["total"] + self._weight * prior}


@dataclass(frozen=True, eq=False)
class PriorPreservingStep:
    """A step of words and of the prior as it was drawn; see `DrawnStep`.

    Attributes:
        rows: Those of the photos, then those of the prior.
        words: The step of the photos.
        prior: What is to be predicted under the class word.
    """

    rows: PassRows
    words: WordStep
    prior: PriorStep


class PriorPreservingWordLearner(PriorPreservingLearner):
    """A learner of words with prior preservation: photos and prior share a pass; see `PackableLearner`."""

    def __init__(self, learner: WordLearner, prior: Prior, weight: float, class_word: str) -> None:
        """As a `PriorPreservingLearner`."""
        super().__init__(learner, prior, weight, class_word)
        self._words = learner
        self._unet = KeyValueUNet(learner.base_model.unet, learner.base_model.pixels_per_latent)

    def losses(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Those of the learner and `prior`."""
        step = self.draw_step(batch, noise, generator)
        return self.step_losses(step, run_pass(self.base_model, self._unet, [step.rows])[0])

    def draw_step(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> PriorPreservingStep:
        """Draw what a step says of its photos, and what of the prior it looks at; see `PackableLearner`."""
        words = self._words.draw_step(batch, noise, generator)
        prior = self._prior.draw(batch, noise, generator)
        return PriorPreservingStep(
            words.rows.followed_by(self._trained.text, prior.latents, prior.timesteps), words, prior
        )

    def step_losses(self, step: PriorPreservingStep, output: PassOutput) -> Mapping[str, Tensor]:
        """The losses of a step that was drawn; see `PackableLearner`."""
        photos, prior = output.split(len(step.words.rows.prompt_of_row))
        return self._with_prior(self._words.step_losses(step.words, photos), step.prior.loss(prior.prediction))
