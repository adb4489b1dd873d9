"""Denoising steps that are launched operation by operation, on texts that are filled up to one length."""

from collections.abc import Sequence
from typing import Protocol

from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues
from detex_diffusion.unet import KeyValueUNet
from detex_generator.engine.denoising_step import StepInputs, StepResults, denoising_step, step_by
from detex_generator.engine.row_lanes import RowLanes
from detex_generator.kernels.choice import KernelChoice
from detex_generator.kernels.operation import Implementation, Operation


class Steps(Protocol):
    """The steps of one UNet; belong to the thread of the step loop, and are called under `torch.inference_mode`."""

    def __call__(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues]) -> StepResults:
        """One step of N images; changes no input.

        Args:
            inputs: Of N images.
            prompts: Of R rows, in their order.
        """

    def rest(self) -> None:
        """Forget texts: no image of them is left."""

    def clear(self) -> None:
        """Give back all that is kept for further steps."""


class PlainSteps:
    """Steps on a GPU that segmented attention has no kernel for."""

    def __init__(self, unet: KeyValueUNet, choice: KernelChoice) -> None:
        """Nothing is stacked yet."""
        self._unet = unet
        self._choice = choice
        self._stacked: tuple[list[PromptKeyValues], KeyValueBatch] | None = None

    def __call__(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues]) -> StepResults:
        """One step of N images; as `Steps`."""
        if self._stacked is None or not same_prompts(self._stacked[0], prompts):
            self._stacked = (list(prompts), KeyValueBatch.stack(prompts))
        implementation = self._choice.take(Operation.GUIDED_SOLVER_STEP)
        return denoising_step(self._unet, inputs, self._stacked[1], implementation)

    def rest(self) -> None:
        """Forget the texts."""
        self._stacked = None

    def clear(self) -> None:
        """Forget the texts, which is all that is kept."""
        self.rest()


class LaneSteps:
    """Steps on a CPU, whose cores share the rows."""

    def __init__(self, unet: KeyValueUNet, lanes: RowLanes) -> None:
        """Nothing is stacked yet."""
        self._unet = unet
        self._dtype = unet.unet.dtype  # diffusers looks through all parameters for it at each question
        self._lanes = lanes
        self._stacked: tuple[list[PromptKeyValues], list[KeyValueBatch]] | None = None

    def __call__(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues]) -> StepResults:
        """One step of N images; as `Steps`."""
        if self._stacked is None or not same_prompts(self._stacked[0], prompts):
            self._stacked = (list(prompts), self._lanes.stack(prompts))
        texts = self._stacked[1]
        return step_by(
            lambda latents, timesteps: self._lanes.predict(self._unet, latents, timesteps, texts),
            self._dtype,
            inputs,
            Implementation.TORCH,
        )

    def rest(self) -> None:
        """Forget the texts."""
        self._stacked = None

    def clear(self) -> None:
        """Forget the texts, which is all that is kept."""
        self.rest()


def same_prompts(one: Sequence[PromptKeyValues], other: Sequence[PromptKeyValues]) -> bool:
    """Whether both hold the very same objects in the same order."""
    return len(one) == len(other) and all(left is right for left, right in zip(one, other, strict=True))
