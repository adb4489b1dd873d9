"""What sets the methods apart: each is a recipe for a learner."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Scope
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.attributes import Attribute
from detex_trainer.domain.hyperparameters import (
    Hyperparameters,
    Method,
    PriorPreservation,
    SubjectStart,
    trainable_method,
)
from detex_trainer.learning.methods.concept_words import ConceptShape
from detex_trainer.learning.methods.learner import ConceptLearner
from detex_trainer.learning.methods.mappers import MapperShape
from detex_trainer.learning.methods.prior_preservation import (
    Prior,
    PriorImages,
    PriorPreservingLearner,
    PriorPreservingWordLearner,
    PriorPrompt,
)
from detex_trainer.learning.methods.unet_learner import UNetLearner
from detex_trainer.learning.methods.word_learner import WordLearner
from detex_trainer.learning.photos.crops import Augmentation
from detex_trainer.learning.photos.dataset import PhotoSet


@dataclass(frozen=True)
class MethodRecipe:
    """What sets a method apart, beside its hyperparameters.

    Attributes:
        learns_attributes: Whether photos have attribute words.
        uses_masks: Whether the subject's masks are looked at; otherwise the whole photo is the subject.
        trains_key_values: Whether there are key and value deltas.
        scope: Which tokens of a prompt go through them.
        trains_unet: Whether the UNet itself is trained: not, whole, or as low-rank adaptation.
        surroundings_probability: See `WordLearner`.
        min_snr_gamma: See `WordLearner`.
        versions: Versions of each photo that are encoded before training.
        augmentation: How the versions vary.
        resizes: Whether photos are shown small and from near, with words that say so (Custom Diffusion).
    """

    learns_attributes: bool
    uses_masks: bool
    trains_key_values: bool
    scope: Scope = "words"
    trains_unet: Literal["no", "whole", "low_rank"] = "no"
    surroundings_probability: float = 0.0
    min_snr_gamma: float | None = None
    versions: int = 8
    augmentation: Augmentation = field(default_factory=Augmentation)
    resizes: bool = False

    def learner(
        self,
        base_model: BaseModel,
        name: str,
        class_word: str,
        attributes: Sequence[Attribute],
        photo_set: PhotoSet,
        hyperparameters: Hyperparameters,
        generator: torch.Generator,
        prior_latents: Tensor | None = None,
        vocabulary: AttributeVocabulary | None = None,
    ) -> ConceptLearner:
        """A learner of this method.

        Args:
            base_model: As of `WordLearner`.
            name: As of `WordLearner`.
            class_word: As of `WordLearner`.
            attributes: As of `WordLearner`.
            photo_set: As of `WordLearner`.
            hyperparameters: As of `WordLearner`.
            generator: As of `WordLearner`.
            prior_latents: (K, C, h, h) of pictures of the class; needed where `needs_prior_images` says so.
            vocabulary: As of `WordLearner`.
        """
        learner: ConceptLearner
        if self.trains_unet == "no":
            learner = self._word_learner(
                base_model, name, class_word, attributes, photo_set, hyperparameters, generator, vocabulary
            )
        else:
            learner = UNetLearner(
                base_model,
                name,
                class_word,
                photo_set,
                hyperparameters,
                generator,
                low_rank=self.trains_unet == "low_rank",
                min_snr_gamma=self.min_snr_gamma,
            )
        if not hyperparameters.prior_loss_weight:
            return learner
        if hyperparameters.prior_preservation is PriorPreservation.PROMPT:
            prior: Prior = PriorPrompt(base_model, class_word)
        elif needs_prior_images(hyperparameters):
            if prior_latents is None:
                raise ValueError("prior preservation with images came without images")
            prior = PriorImages(base_model, prior_latents)
        else:
            return learner
        if isinstance(learner, WordLearner):
            return PriorPreservingWordLearner(learner, prior, hyperparameters.prior_loss_weight, class_word)
        return PriorPreservingLearner(learner, prior, hyperparameters.prior_loss_weight, class_word)

    def _word_learner(
        self,
        base_model: BaseModel,
        name: str,
        class_word: str,
        attributes: Sequence[Attribute],
        photo_set: PhotoSet,
        hyperparameters: Hyperparameters,
        generator: torch.Generator,
        vocabulary: AttributeVocabulary | None,
    ) -> WordLearner:
        shape = ConceptShape(
            subject_tokens=hyperparameters.subject_tokens,
            begins_at_rare_word=hyperparameters.subject_start is SubjectStart.RARE_WORD,
            attributes=tuple(attribute.name for attribute in attributes),
            trains_key_values=self.trains_key_values,
            trains_subject_vectors=self.trains_unet == "no" and hyperparameters.subject_key_value_learning_rate > 0,
            scope=self.scope,
            mapper=MapperShape(hyperparameters.mapper_layers, fixed_norm=hyperparameters.mapper_fixed_norm),
        )
        return WordLearner(
            base_model,
            name,
            class_word,
            attributes,
            photo_set,
            hyperparameters,
            shape,
            generator,
            surroundings_probability=self.surroundings_probability,
            min_snr_gamma=self.min_snr_gamma,
            vocabulary=vocabulary,
        )


_DREAMBOOTH = MethodRecipe(
    learns_attributes=False, uses_masks=False, trains_key_values=False, scope="prompt", trains_unet="whole"
)

_RECIPES: dict[Method, MethodRecipe] = {
    Method.DETEX: MethodRecipe(
        learns_attributes=True, uses_masks=True, trains_key_values=True, surroundings_probability=0.3
    ),
    Method.TEXTUAL_INVERSION: MethodRecipe(learns_attributes=False, uses_masks=False, trains_key_values=False),
    Method.DREAMBOOTH: _DREAMBOOTH,
    Method.DREAMBOOTH_LORA: replace(_DREAMBOOTH, trains_unet="low_rank"),
    Method.CUSTOM_DIFFUSION: MethodRecipe(
        learns_attributes=False,
        uses_masks=False,
        trains_key_values=True,
        scope="prompt",
        versions=16,
        resizes=True,
    ),
}


def needs_prior_images(hyperparameters: Hyperparameters) -> bool:
    """Whether a job learns pictures of the class beside its photos."""
    is_asked = hyperparameters.prior_preservation is PriorPreservation.IMAGES
    return is_asked and hyperparameters.prior_loss_weight > 0


def method_recipe(method: str) -> MethodRecipe:
    """The recipe of a method.

    Raises:
        InvalidInputError: This trainer does not train that method; field `method`.
    """
    return _RECIPES[trainable_method(method)]
