"""Training runs of sample subjects, as a worker makes them."""

import torch

from benchmarks.training.photos import training_set_of
from detex_diffusion.base_model import BaseModel
from detex_showroom.assets import SampleSubject
from detex_trainer.domain.attributes import parse_attributes
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.learning.methods import method_recipe
from detex_trainer.learning.training.concept_training import prepare
from detex_trainer.learning.training.run import TrainingRun

LONG = 20_000


def make_run(base_model: BaseModel, subject: SampleSubject, method: str, *, seed: int, batch: int) -> TrainingRun:
    """A run of a method with its defaults, but for steps without end and no pictures of the class.

    Args:
        base_model: The base model.
        subject: Whose photos.
        method: Name of the method.
        seed: Of its chance.
        batch: Photos of a step.
    """
    recipe = method_recipe(method)
    overrides = {"steps": LONG, "batch_size": batch, "seed": seed, "prior_loss_weight": 0.0}
    hyperparameters = resolve_hyperparameters(method, overrides)
    generator = torch.Generator().manual_seed(seed)
    has_attributes = recipe.learns_attributes and base_model.image_encoder is not None
    attributes = parse_attributes(["pose", "background"]) if has_attributes else ()
    training_set = training_set_of(subject)
    photo_set = prepare(training_set, base_model, recipe, 0, generator, with_features=bool(attributes))
    learner = recipe.learner(
        base_model,
        subject.name,
        subject.class_word,
        attributes,
        photo_set,
        hyperparameters,
        generator,
    )
    return TrainingRun(learner, photo_set, base_model.noise_schedule, hyperparameters, generator)
