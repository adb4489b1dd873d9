"""Learning a concept by training the UNet: DreamBooth (Ruiz et al. 2023), whole or as low-rank adaptation.

The subject word is a rare word whose embedding stays as it is; the UNet learns what it means. Prompts, noise, losses
and measures are those of `WordLearner`, on a base model that has the trained UNet in place of its own.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_trainer.domain.hyperparameters import Hyperparameters
from detex_trainer.learning.methods.concept_words import ConceptShape
from detex_trainer.learning.methods.learner import FirstWords, ParameterGroup, StepNoise
from detex_trainer.learning.methods.trained_unet import TrainedUNet
from detex_trainer.learning.methods.word_learner import WordLearner
from detex_trainer.learning.photos.dataset import Batch, PhotoSet


class UNetLearner:
    """A concept of a trained UNet while it is learned; see `Learner`. It shares no pass with other learners."""

    def __init__(
        self,
        base_model: BaseModel,
        name: str,
        class_word: str,
        photo_set: PhotoSet,
        hyperparameters: Hyperparameters,
        generator: torch.Generator,
        *,
        low_rank: bool,
        min_snr_gamma: float | None = None,
    ) -> None:
        """Begin at the base model.

        Args:
            base_model: Stays as it is; its UNet is copied.
            name: Of the concept.
            class_word: What the subject is.
            photo_set: What to learn from.
            hyperparameters: Learning rate, rank and weights of the losses.
            generator: Source of the initial values.
            low_rank: Whether to train an adaptation of rank `lora_rank` in place of every parameter.
            min_snr_gamma: See `WordLearner`.
        """
        rank = hyperparameters.lora_rank if low_rank else None
        self._learning_rate = hyperparameters.unet_learning_rate
        self._trained = TrainedUNet(base_model.unet, rank, generator)
        text = base_model.text
        if base_model.dtype is not torch.float32:
            text = text.with_modules([copy.deepcopy(encoder).float() for encoder in text.modules()])
        self.base_model = replace(base_model, unet=self._trained.unet, text=text, dtype=torch.float32)
        shape = ConceptShape(
            trains_subject=False, trains_key_values=False, scope="prompt", begins_at_rare_word=True, subject_tokens=0
        )
        without_prior = hyperparameters.model_copy(update={"prior_loss_weight": 0.0})
        self._learner = WordLearner(
            self.base_model,
            name,
            class_word,
            (),
            photo_set,
            without_prior,
            shape,
            generator,
            min_snr_gamma=min_snr_gamma,
        )

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The UNet, or its adaptation."""
        return [ParameterGroup("unet", self._trained.parameters(), self._learning_rate)]

    def losses(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> Mapping[str, Tensor]:
        """`denoising` and `total`."""
        return self._learner.losses(batch, noise, generator)

    def measure(self, batch: Batch, noise: StepNoise) -> Mapping[str, float]:
        """As `WordLearner.measure`."""
        return self._learner.measure(batch, noise)

    def subject_attention(self, batch: Batch, noise: StepNoise) -> Tensor:
        """As `WordLearner.subject_attention`."""
        return self._learner.subject_attention(batch, noise)

    def concept(self) -> Concept:
        """The concept as it stands."""
        return replace(self._learner.concept(), unet_delta=self._trained.delta())

    def key_value_deltas(self) -> KeyValueDeltas:
        """None: keys and values come from the trained UNet itself."""
        return {}

    def delta_share(self) -> float:
        """|dW| / |W| over the parameters that have moved."""
        return self._trained.delta_share()

    def first_words(self) -> FirstWords:
        """None: the subject word is a rare word, and there are no others."""
        return FirstWords()
