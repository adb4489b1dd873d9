"""Methods of learning a concept. Each makes a `Learner`; the training loop is the same for all."""

from detex_trainer.learning.methods.learner import ConceptLearner, Learner, ParameterGroup, StepNoise
from detex_trainer.learning.methods.recipe import MethodRecipe, method_recipe, needs_prior_images

__all__ = [
    "ConceptLearner",
    "Learner",
    "MethodRecipe",
    "ParameterGroup",
    "StepNoise",
    "method_recipe",
    "needs_prior_images",
]
