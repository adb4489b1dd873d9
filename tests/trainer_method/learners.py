"""Learners on the tiny base model."""

import torch

from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.attributes import parse_attributes
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods import ConceptLearner, method_recipe, needs_prior_images
from detex_trainer.learning.methods.word_learner import WordLearner
from detex_trainer.learning.photos.dataset import PhotoSet
from detex_trainer.learning.training.concept_training import prepare


def make_learner(
    base_model: BaseModel, training_set: TrainingSet, method: str = "detex", attributes: str = "", **overrides: object
) -> tuple[ConceptLearner, PhotoSet]:
    """A learner of a method; pictures of the class are noise, and nothing begins at plain words unless asked for."""
    plain = {"attribute_start": "noun"} | ({"subject_start": "class_word"} if method == "detex" else {})
    overrides = {**plain, **overrides}
    recipe = method_recipe(method)
    hyperparameters = resolve_hyperparameters(method, overrides)
    generator = torch.Generator().manual_seed(hyperparameters.seed)
    named = parse_attributes(attributes.split())
    photo_set = prepare(training_set, base_model, recipe, 0, generator, with_features=bool(named))
    prior = torch.randn(4, *base_model.latent_shape(), generator=generator)
    learner = recipe.learner(
        base_model,
        "my-mug",
        "mug",
        named,
        photo_set,
        hyperparameters,
        generator,
        prior if needs_prior_images(hyperparameters) else None,
    )
    return learner, photo_set


def make_word_learner(
    base_model: BaseModel, training_set: TrainingSet, attributes: str = "", **overrides: object
) -> tuple[WordLearner, PhotoSet]:
    """A learner of detex."""
    learner, photo_set = make_learner(base_model, training_set, "detex", attributes, **overrides)
    assert isinstance(learner, WordLearner)
    return learner, photo_set
