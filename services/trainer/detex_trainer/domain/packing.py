"""What jobs that train together have in common, and what is asked of them when they do; without torch."""

from collections.abc import Callable
from dataclasses import dataclass

from detex_core.artifact import Manifest
from detex_trainer.domain.hyperparameters import Hyperparameters, Method, PriorPreservation
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.progress import ProgressReporter
from detex_trainer.domain.training_set import TrainingSet

_METHODS = frozenset({Method.DETEX, Method.TEXTUAL_INVERSION, Method.CUSTOM_DIFFUSION})
_UNDER_CLASS_WORD = frozenset({PriorPreservation.IMAGES, PriorPreservation.PROMPT})


@dataclass(frozen=True, eq=False)
class PackedJob:
    """A job that is to be trained with others.

    Attributes:
        spec: The job.
        training_set: Its photos.
        reporter: Told of its phases, progress, checkpoints and previews.
        should_stop: Asked before each of its steps and between its phases.
    """

    spec: JobSpec
    training_set: TrainingSet
    reporter: ProgressReporter
    should_stop: Callable[[], bool]


OnEnd = Callable[[PackedJob, Manifest | Exception], None]


def shares_passes(method: Method) -> bool:
    """Whether jobs of a method can share their passes of the base model: not where they train the UNet."""
    return method in _METHODS


def rows_per_step(hyperparameters: Hyperparameters) -> int:
    """Rows of a step's pass: one for each photo, and as many for a prior that is looked at under the class word."""
    has_prior = hyperparameters.prior_loss_weight > 0 and hyperparameters.prior_preservation in _UNDER_CLASS_WORD
    return hyperparameters.batch_size * (2 if has_prior else 1)
