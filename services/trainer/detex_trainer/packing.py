"""What jobs that train together have in common, and what is asked of them when they do; without torch."""

from collections.abc import Callable
from dataclasses import dataclass

from detex_core.artifact import Manifest
from detex_trainer.hyperparameters import Hyperparameters, Method, PriorPreservation
from detex_trainer.job_spec import JobSpec
from detex_trainer.progress import ProgressReporter
from detex_trainer.training_set.training_set import TrainingSet

_METHODS = frozenset({Method.DETEX, Method.TEXTUAL_INVERSION, Method.CUSTOM_DIFFUSION})
_SECOND_PASSES = frozenset({PriorPreservation.IMAGES, PriorPreservation.PROMPT})


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


def shares_passes(method: Method, hyperparameters: Hyperparameters) -> bool:
    """Whether such a job can share its passes of the base model: not where it trains the UNet or runs it twice."""
    runs_twice = hyperparameters.prior_loss_weight > 0 and hyperparameters.prior_preservation in _SECOND_PASSES
    return method in _METHODS and not runs_twice
