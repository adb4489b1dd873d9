"""What sets the methods apart: each is a recipe for the same learner."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Scope
from detex_trainer.attributes import Attribute
from detex_trainer.crops import Augmentation
from detex_trainer.dataset import PhotoSet
from detex_trainer.hyperparameters import Hyperparameters, Method, trainable_method
from detex_trainer.mappers import MapperShape
from detex_trainer.methods.concept_words import ConceptShape
from detex_trainer.methods.word_learner import WordLearner


@dataclass(frozen=True)
class MethodRecipe:
    """What sets a method apart, beside its hyperparameters.

    Attributes:
        learns_attributes: Whether photos have attribute words.
        uses_masks: Whether the subject's masks are looked at; otherwise the whole photo is the subject.
        trains_key_values: Whether there are key and value deltas.
        scope: Which tokens of a prompt go through them.
        mapper: Form of the attribute mappers.
        surroundings_probability: See `WordLearner`.
        min_snr_gamma: See `WordLearner`.
        versions: Versions of each photo that are encoded before training.
        augmentation: How the versions vary.
    """

    learns_attributes: bool
    uses_masks: bool
    trains_key_values: bool
    scope: Scope = "words"
    mapper: MapperShape = field(default_factory=MapperShape)
    surroundings_probability: float = 0.0
    min_snr_gamma: float | None = None
    versions: int = 8
    augmentation: Augmentation = field(default_factory=Augmentation)

    def learner(
        self,
        base_model: BaseModel,
        name: str,
        class_word: str,
        attributes: Sequence[Attribute],
        photo_set: PhotoSet,
        hyperparameters: Hyperparameters,
        generator: torch.Generator,
    ) -> WordLearner:
        """A learner of this method; arguments as of `WordLearner`."""
        shape = ConceptShape(
            subject_tokens=hyperparameters.subject_tokens,
            attributes=tuple(attribute.name for attribute in attributes),
            trains_key_values=self.trains_key_values,
            scope=self.scope,
            mapper=self.mapper,
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
        )


_RECIPES: dict[Method, MethodRecipe] = {
    Method.DETEX: MethodRecipe(learns_attributes=True, uses_masks=True, trains_key_values=True),
    Method.TEXTUAL_INVERSION: MethodRecipe(learns_attributes=False, uses_masks=False, trains_key_values=False),
    Method.CUSTOM_DIFFUSION: MethodRecipe(
        learns_attributes=False, uses_masks=False, trains_key_values=True, scope="prompt"
    ),
}


def method_recipe(method: str) -> MethodRecipe:
    """The recipe of a method.

    Raises:
        InvalidInputError: This trainer does not train that method; field `method`.
    """
    return _RECIPES[trainable_method(method)]
