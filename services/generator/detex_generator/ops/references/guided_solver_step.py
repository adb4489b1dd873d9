"""Classifier-free guidance and the solver's step, by the functions of `detex_diffusion.solver`."""

import torch
from torch import Tensor

from detex_diffusion.solver import guide, solver_step


def guided_solver_step(
    coefficients: Tensor,
    latents: Tensor,
    output: Tensor,
    unconditional: Tensor,
    guidance_scales: Tensor,
    previous_clean: Tensor,
) -> tuple[Tensor, Tensor]:
    """Next latents and clean latents, both (N, C, h, w); arguments as in `ops.guided_solver_step`.

    Reads no tensor on the host, so that it can be part of a CUDA graph.
    """
    wide = output.float()
    conditional = wide[: len(latents)]
    guided = guide(wide[unconditional.clamp(min=0)], conditional, guidance_scales)
    is_guided = (unconditional >= 0).view(-1, *(1,) * (latents.ndim - 1))
    return solver_step(coefficients, latents, torch.where(is_guided, guided, conditional), previous_clean)
