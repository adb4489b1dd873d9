"""Methods of learning a concept. Each makes a `Learner`; the training loop is the same for all."""

from detex_trainer.methods.learner import Learner, ParameterGroup, StepNoise
from detex_trainer.methods.recipe import MethodRecipe, method_recipe

__all__ = ["Learner", "MethodRecipe", "ParameterGroup", "StepNoise", "method_recipe"]
