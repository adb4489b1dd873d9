"""Denoising steps that are launched operation by operation, on texts that are filled up to one length."""

from collections.abc import Sequence
from typing import Protocol

import torch

from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.denoising_step import StepInputs, StepResults, denoising_step, step_by
from detex_generator.compute.row_lanes import RowLanes
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Implementation, Operation


class Steps(Protocol):
    """The steps of one UNet; belong to the thread of the step loop, and are called under `torch.inference_mode`."""

    def __call__(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues]) -> StepResults:
        """One step of N images; changes no input.

        Args:
            inputs: Of N images.
            prompts: Of R rows, in their order.
        """

    def rest(self, shape: torch.Size) -> None:
        """Forget the texts of a size (C, h, w) of latents: no image of it is left."""

    def clear(self) -> None:
        """Give back all that is kept for further steps."""


class PlainSteps:
    """Steps on a GPU that segmented attention has no kernel for."""

    def __init__(self, unet: KeyValueUNet, choice: KernelChoice) -> None:
        """Nothing is stacked yet."""
        self._unet = unet
        self._choice = choice
        # By the size of latents: batches of several sizes take turns here, each with texts of its own.
        self._stacked: dict[torch.Size, tuple[list[PromptKeyValues], KeyValueBatch]] = {}

    def __call__(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues]) -> StepResults:
        """One step of N images; as `Steps`."""
        shape = inputs.latents.shape[1:]
        last = self._stacked.get(shape)
        if last is None or not same_prompts(last[0], prompts):
            last = self._stacked[shape] = (list(prompts), KeyValueBatch.stack(prompts))
        implementation = self._choice.take(Operation.GUIDED_SOLVER_STEP)
        return denoising_step(self._unet, inputs, last[1], implementation)

    def rest(self, shape: torch.Size) -> None:
        """Forget the texts of a size."""
        self._stacked.pop(shape, None)

    def clear(self) -> None:
        """Forget the texts, which is all that is kept."""
        self._stacked.clear()


class LaneSteps:
    """Steps of one size on a CPU, whose cores share the rows."""

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

    def rest(self, shape: torch.Size) -> None:
        """Forget the texts."""
        del shape
        self.clear()

    def clear(self) -> None:
        """Forget the texts, which is all that is kept."""
        self._stacked = None


def same_prompts(one: Sequence[PromptKeyValues], other: Sequence[PromptKeyValues]) -> bool:
    """Whether both hold the very same objects in the same order."""
    return len(one) == len(other) and all(left is right for left, right in zip(one, other, strict=True))
