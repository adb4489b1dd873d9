"""A step of a learner of words: as it was drawn, and what the base model made of it.

Legend: B photos of a step, C latent channels, (h, h) latent size, T text tokens, E text width, G groups of words
(subject and background), (n, n) size of attention maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from detex_trainer.learning.methods.learner import StepNoise
from detex_trainer.learning.methods.photo_prompts import PhotoPrompt
from detex_trainer.learning.methods.unet_pass import PassRows
from detex_trainer.learning.photos.dataset import Batch


@dataclass(frozen=True, eq=False)
class WordStep:
    """A step as it was drawn, before the base model has seen it; see `DrawnStep`.

    Attributes:
        rows: What is asked of the base model.
        batch: Photos of the step.
        noise: Drawn for them.
        prompts: B, drawn for them.
        groups: (B, G, T), 1 at the words of a group.
        regularisation: Hidden states (T', E) of the regularisation prompt drawn, or None where there is none.
    """

    rows: PassRows
    batch: Batch
    noise: StepNoise
    prompts: Sequence[PhotoPrompt]
    groups: Tensor
    regularisation: Tensor | None = None


@dataclass(frozen=True)
class StepOutput:
    """What the UNet makes of a batch.

    Attributes:
        prediction: (B, C, h, h).
        target: (B, C, h, h).
        attention: (B, G, n, n), maps of subject and background words with maximum 1.
        regions: (B, G, n, n), where they belong.
        present: (B, G) bool, which of them the prompts have.
    """

    prediction: Tensor
    target: Tensor
    attention: Tensor
    regions: Tensor
    present: Tensor
