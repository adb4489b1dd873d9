"""One denoising step of several images as a function of tensors alone, fit for a CUDA graph.

Nothing here reads a tensor on the host, and all shapes follow from those of the inputs.

Legend: N images, R rows of the UNet pass (one for each image and one more for each guided image), C latent channels,
h and w latent height and width, K columns of a step table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from detex_diffusion.cross_attention import AttendedText
from detex_diffusion.solver import scale_input
from detex_diffusion.unet import KeyValueUNet
from detex_generator.ops.guided_solver_step import guided_solver_step
from detex_generator.ops.operation import Implementation


@dataclass(frozen=True, eq=False)
class StepInputs:
    """What a step reads beside the UNet and its text.

    Attributes:
        coefficients: (N, K) float32, each image's line of its own step table.
        latents: (N, C, h, w) float32.
        previous_clean: (N, C, h, w) float32, clean latents of the step before; zeros at the first.
        sources: (R,) int64, the image whose latents a row reads: 0 to N - 1, then the guided images in their order.
        unconditional: (N,) int32, the row of an image's negative prompt, -1 where it is not guided.
        guidance_scales: (N,) float32, 1 where an image is not guided.
    """

    coefficients: Tensor
    latents: Tensor
    previous_clean: Tensor
    sources: Tensor
    unconditional: Tensor
    guidance_scales: Tensor

    @classmethod
    def of(
        cls,
        coefficients: Tensor,
        latents: Tensor,
        previous_clean: Tensor,
        guidance_scales: Sequence[float | None],
    ) -> Self:
        """Inputs of N images on the device of the latents; a guidance scale is None where an image is not guided."""
        device = latents.device
        if device.type == "cuda" and coefficients.device.type == "cpu":
            # From memory that the GPU reads by itself: else the host would wait for all that the GPU has to do before.
            coefficients = coefficients.contiguous().pin_memory()
        rows = _rows_of(tuple(guidance_scales), device)
        return cls(coefficients.to(device, non_blocking=True), latents, previous_clean, *rows)

    def filled(self, images: int, rows: int) -> Self:
        """The same with further images of zeros, that are not guided, and rows that read the first image.

        Args:
            images: At least N.
            rows: At least R, and at least `images`.
        """
        more_images, more_rows = images - len(self.latents), rows - len(self.sources)
        if more_images < 0 or more_rows < 0 or rows < images:
            raise ValueError(f"{len(self.latents)} images and {len(self.sources)} rows do not fit {images} and {rows}")
        pictures = (0, 0) * (self.latents.ndim - 1)
        return replace(
            self,
            coefficients=functional.pad(self.coefficients, (0, 0, 0, more_images)),
            latents=functional.pad(self.latents, (*pictures, 0, more_images)),
            previous_clean=functional.pad(self.previous_clean, (*pictures, 0, more_images)),
            sources=functional.pad(self.sources, (0, more_rows)),
            unconditional=functional.pad(self.unconditional, (0, more_images), value=-1),
            guidance_scales=functional.pad(self.guidance_scales, (0, more_images), value=1.0),
        )

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the attributes."""
        return [getattr(self, field.name) for field in fields(self)]

    def cloned(self) -> Self:
        """A copy whose tensors are its own."""
        return type(self)(*(tensor.clone() for tensor in self.tensors))


@dataclass(frozen=True, eq=False)
class StepResults:
    """What a step gives.

    Attributes:
        latents: (N, C, h, w) float32, the next latents.
        clean: (N, C, h, w) float32, the clean latents as the model guesses them.
        finite: (N,) bool, whether all of an image's next latents are numbers.
    """

    latents: Tensor
    clean: Tensor
    finite: Tensor

    def first(self, images: int) -> Self:
        """Those of the first images, in memory of their own."""
        return type(self)(*(tensor[:images].clone() for tensor in (self.latents, self.clean, self.finite)))


@lru_cache(maxsize=512)
def _rows_of(guidance_scales: tuple[float | None, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`sources`, `unconditional` and `guidance_scales` of `StepInputs`; the same from step to step."""
    images = len(guidance_scales)
    guided = [index for index, scale in enumerate(guidance_scales) if scale is not None]
    unconditional = [-1] * images
    for row, index in enumerate(guided, start=images):
        unconditional[index] = row
    scales = [1.0 if scale is None else scale for scale in guidance_scales]
    return (
        torch.tensor([*range(images), *guided], device=device),
        torch.tensor(unconditional, dtype=torch.int32, device=device),
        torch.tensor(scales, dtype=torch.float32, device=device),
    )


def denoising_step(
    unet: KeyValueUNet, inputs: StepInputs, text: AttendedText, solver_implementation: Implementation
) -> StepResults:
    """UNet, guidance and solvers.

    Args:
        unet: On the device of the inputs.
        inputs: Of N images in R rows.
        text: Of R rows.
        solver_implementation: By what guidance and solvers are computed.
    """
    return step_by(
        lambda latents, timesteps: unet(latents, timesteps, text), unet.unet.dtype, inputs, solver_implementation
    )


def step_by(
    predict: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype,
    inputs: StepInputs,
    solver_implementation: Implementation,
) -> StepResults:
    """The same with whatever predicts.

    Args:
        predict: From latents (R, C, h, w), channels last, and timesteps (R,) to a prediction (R, C, h, w).
        dtype: Of the latents that it takes.
        inputs: Of N images in R rows.
        solver_implementation: By what guidance and solvers are computed.
    """
    coefficients = inputs.coefficients[inputs.sources]
    read = scale_input(coefficients, inputs.latents[inputs.sources]).to(dtype)
    output = predict(read.contiguous(memory_format=torch.channels_last), coefficients[:, 0])
    following, clean = guided_solver_step(
        inputs.coefficients,
        inputs.latents,
        output,
        inputs.unconditional,
        inputs.guidance_scales,
        inputs.previous_clean,
        solver_implementation,
    )
    return StepResults(following, clean, torch.isfinite(following).flatten(1).all(dim=1))
