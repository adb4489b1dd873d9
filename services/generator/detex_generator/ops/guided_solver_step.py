"""What follows the UNet in a denoising step: guidance, and each row's own solver.

Legend: N images, R >= N rows of the UNet's output, K columns of a step table, C latent channels, h and w latent height
and width.
"""

import torch
from torch import Tensor

from detex_generator.ops.availability import check_available
from detex_generator.ops.operation import Implementation, Operation
from detex_generator.ops.references import guided_solver_step as reference


def guided_solver_step(
    coefficients: Tensor,
    latents: Tensor,
    output: Tensor,
    unconditional: Tensor,
    guidance_scales: Tensor,
    previous_clean: Tensor,
    implementation: Implementation,
) -> tuple[Tensor, Tensor]:
    """One step of N images, each guided or not, of its own solver and at its own denoising step.

    Args:
        coefficients: (N, K) float32, rows of `StepTable.rows`.
        latents: (N, C, h, w) float32.
        output: (R, C, h, w) of any float type: the UNet's output for the N prompts, then for negative prompts.
        unconditional: (N,) int32, the row of an image's negative prompt in `output`, -1 where it is not guided.
        guidance_scales: (N,) float32; anything finite where an image is not guided.
        previous_clean: (N, C, h, w) float32, of the step before; anything finite at the first.
        implementation: By what.

    Returns:
        The next latents and the predicted clean latents, both (N, C, h, w) float32.

    Raises:
        KernelUnavailableError: Triton is asked for and cannot run here.
    """
    arguments = (coefficients, latents, output, unconditional, guidance_scales, previous_clean)
    if implementation is Implementation.TORCH:
        return reference.guided_solver_step(*arguments)
    stepped: tuple[Tensor, Tensor] = guided_solver_step_operator(*arguments)
    return stepped


@torch.library.custom_op("detex::guided_solver_step", mutates_args=())
def guided_solver_step_operator(
    coefficients: Tensor,
    latents: Tensor,
    output: Tensor,
    unconditional: Tensor,
    guidance_scales: Tensor,
    previous_clean: Tensor,
) -> tuple[Tensor, Tensor]:
    """The Triton kernel as an operator of torch."""
    check_available(Operation.GUIDED_SOLVER_STEP, output)
    from detex_generator.ops.triton_kernels import guided_solver_step as kernel

    following, clean = _empty_results(latents)
    kernel.plan(
        coefficients.contiguous(),
        latents.contiguous(),
        output.contiguous(),
        unconditional.contiguous(),
        guidance_scales.contiguous(),
        previous_clean.contiguous(),
        following,
        clean,
    ).run()
    return following, clean


@guided_solver_step_operator.register_fake
def _(
    coefficients: Tensor,
    latents: Tensor,
    output: Tensor,
    unconditional: Tensor,
    guidance_scales: Tensor,
    previous_clean: Tensor,
) -> tuple[Tensor, Tensor]:
    return _empty_results(latents)


def _empty_results(latents: Tensor) -> tuple[Tensor, Tensor]:
    following = torch.empty_like(latents, dtype=torch.float32, memory_format=torch.contiguous_format)
    return following, torch.empty_like(following)
