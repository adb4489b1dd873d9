"""What a method of learning a concept is to the training loop, which knows nothing else of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_trainer.learning.methods.unet_pass import PassOutput, PassRows
from detex_trainer.learning.photos.dataset import Batch


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: For reports.
        parameters: What is trained.
        learning_rate: Its highest value; the schedule scales it.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float


@dataclass(frozen=True)
class StepNoise:
    """What is drawn at random for the pictures of a step.

    Attributes:
        noise: (B, C, h, w), standard normal.
        timesteps: (B,) int64.
    """

    noise: Tensor
    timesteps: Tensor


class Learner(Protocol):
    """One concept while it is learned on a base model that stays frozen."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All that is trained, and nothing else."""

    def losses(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The losses of one step, scalars; `total` is what is minimised, the others are for reports.

        Args:
            batch: Photos of the step.
            noise: Drawn for them.
            generator: Source of what the method itself draws, such as which words stay in a prompt.
        """

    def measure(self, batch: Batch, noise: StepNoise) -> Mapping[str, float]:
        """Numbers for the report, without gradients and without chance; `denoising_loss` among them."""

    def concept(self) -> Concept:
        """The concept as it stands, detached from training; its tensors share no memory with what is trained."""


@dataclass(frozen=True)
class FirstWords:
    """Plain words at which the words of a concept began.

    Attributes:
        subject: What described it; empty where the subject began at the class word, or at a rare word.
        attributes: By attribute, the word of each photo; "" where it was the attribute's noun.
    """

    subject: str = ""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ConceptLearner(Learner, Protocol):
    """A learner of a concept on a base model."""

    @property
    def base_model(self) -> BaseModel:
        """The base model, with the UNet in training in place of its own where one is trained."""

    def key_value_deltas(self) -> KeyValueDeltas:
        """Deltas of keys and values by layer, made of the parameters themselves; empty where none are trained."""

    def subject_attention(self, batch: Batch, noise: StepNoise) -> Tensor:
        """Where the subject word is looked at: (B, n, n) with maximum 1."""

    def delta_share(self) -> float:
        """Size of what was added to the base model's weights as a share of them: |dW| / |W|, Frobenius norms."""

    def first_words(self) -> FirstWords:
        """The plain words at which the concept's words began."""


class DrawnStep(Protocol):
    """A step of a learner whose chance has been drawn, before the base model has seen it."""

    @property
    def rows(self) -> PassRows:
        """What is asked of the base model."""


_Step = TypeVar("_Step", bound=DrawnStep)


@runtime_checkable
class PackableLearner(Learner, Protocol[_Step]):
    """A learner whose steps can share a pass of the base model with those of others.

    `losses` of such a learner is `step_losses` of what `draw_step` drew after a pass with its rows alone.
    """

    def draw_step(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> _Step:
        """Draw a step; arguments as of `losses`."""

    def step_losses(self, step: _Step, output: PassOutput) -> Mapping[str, Tensor]:
        """The losses of a step that was drawn, from what the base model made of its rows; see `losses`."""
