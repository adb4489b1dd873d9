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

from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.conditioning import KeyValueBatch, OwnedTokens, project
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_diffusion.text import encode, tokenize
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.dataset import Batch
from detex_trainer.methods.learner import ConceptLearner, ParameterGroup, StepNoise
from detex_trainer.prompts import class_prompt


class ClassPrediction:
    """What a UNet predicts under the class word, with deltas of keys and values or without."""

    def __init__(self, base_model: BaseModel, class_word: str) -> None:
        """For a base model, which may have a UNet in training in place of its own."""
        self._unet = KeyValueUNet(base_model.unet)
        self._dtype = base_model.dtype
        prompt = tokenize(parse_prompt(class_prompt(class_word)), {}, base_model.tokenizer)
        with torch.no_grad():
            self._hidden = encode(base_model, [prompt])  # (1, T, E)

    def __call__(self, noisy: Tensor, timesteps: Tensor, deltas: KeyValueDeltas) -> Tensor:
        """(B, C, h, h) float32 for latents with noise of that shape and timesteps (B,).

        Every token goes through the deltas, as it does in a prompt of a concept whose scope is `prompt`.
        """
        owned = []
        if deltas:
            tokens = torch.ones(self._hidden.shape[:2], dtype=torch.bool)
            owned = [OwnedTokens(tokens, {name: each.to(dtype=self._dtype) for name, each in deltas.items()})]
        one = project(self._unet.unet, self._hidden, owned)
        rows = noisy.shape[0]
        batch = KeyValueBatch(
            {name: (k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for name, (k, v) in one.layers.items()}
        )
        return self._unet(noisy.to(self._dtype), timesteps, batch).float()


class Prior(Protocol):
    """What a learner has to preserve."""

    def loss(
        self,
        trained: ClassPrediction,
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
        trained: ClassPrediction,
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
        self._frozen = ClassPrediction(base_model, class_word)

    def loss(
        self,
        trained: ClassPrediction,
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
        self._trained = ClassPrediction(learner.base_model, class_word)

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

    def concept(self) -> Concept:
        """The concept as it stands."""
        return self._learner.concept()

    def delta_share(self) -> float:
        """As the learner's."""
        return self._learner.delta_share()
