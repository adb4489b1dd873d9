"""Classifier-free guidance and the step of every row's own solver, each element read and written once."""

import triton
import triton.language as tl
from torch import Tensor

from detex_diffusion.solver import COLUMNS
from detex_generator.ops.triton_kernels.launch import Launch

_TILE = 1024
_CLEAN_FROM_LATENTS = tl.constexpr(COLUMNS.index("clean_from_latents"))
_CLEAN_FROM_OUTPUT = tl.constexpr(COLUMNS.index("clean_from_output"))
_CLEAN_LIMIT = tl.constexpr(COLUMNS.index("clean_limit"))
_NEXT_FROM_LATENTS = tl.constexpr(COLUMNS.index("next_from_latents"))
_NEXT_FROM_OUTPUT = tl.constexpr(COLUMNS.index("next_from_output"))
_NEXT_FROM_CLEAN = tl.constexpr(COLUMNS.index("next_from_clean"))
_NEXT_FROM_PREVIOUS_CLEAN = tl.constexpr(COLUMNS.index("next_from_previous_clean"))


@triton.jit
def _guided_solver_step(
    coefficients,  # (N, COLUMN_COUNT) float32
    latents,  # (N, size) float32
    output,  # (R, size), R >= N
    unconditional,  # (N,) int32, rows of `output`, -1 for none
    guidance_scales,  # (N,) float32
    previous_clean,  # (N, size) float32
    following,  # (N, size) float32, written
    clean,  # (N, size) float32, written
    size,
    COLUMN_COUNT: tl.constexpr,
    TILE: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    element = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = element < size
    of_row = coefficients + row * COLUMN_COUNT
    limit = tl.load(of_row + _CLEAN_LIMIT)
    partner = tl.load(unconditional + row)
    scale = tl.load(guidance_scales + row)

    sample = tl.load(latents + row * size + element, mask=inside, other=0.0)
    conditional = tl.load(output + row * size + element, mask=inside, other=0.0).to(tl.float32)
    partner_at = partner.to(tl.int64) * size + element
    partner_size = tl.where(partner >= 0, size, 0)
    free = tl.load(output + partner_at, mask=element < partner_size, other=0.0).to(tl.float32)
    model_output = tl.where(partner >= 0, free + scale * (conditional - free), conditional)

    guess = tl.load(of_row + _CLEAN_FROM_LATENTS) * sample + tl.load(of_row + _CLEAN_FROM_OUTPUT) * model_output
    # Comparisons and not a minimum: what is no number must stay so, for the engine looks for it.
    guess = tl.where(guess > limit, limit, guess)
    guess = tl.where(guess < -limit, -limit, guess)
    step = tl.load(of_row + _NEXT_FROM_LATENTS) * sample + tl.load(of_row + _NEXT_FROM_OUTPUT) * model_output
    step += tl.load(of_row + _NEXT_FROM_CLEAN) * guess
    before = tl.load(previous_clean + row * size + element, mask=inside, other=0.0)
    step += tl.load(of_row + _NEXT_FROM_PREVIOUS_CLEAN) * before
    tl.store(following + row * size + element, step, mask=inside)
    tl.store(clean + row * size + element, guess, mask=inside)


def plan(
    coefficients: Tensor,
    latents: Tensor,
    output: Tensor,
    unconditional: Tensor,
    guidance_scales: Tensor,
    previous_clean: Tensor,
    following: Tensor,
    clean: Tensor,
) -> Launch:
    """The launch that fills `following` and `clean`; shapes as in `ops.guided_solver_step`, all contiguous."""
    rows = latents.shape[0]
    size = latents.shape[1:].numel()
    return Launch(
        _guided_solver_step,
        (triton.cdiv(size, _TILE), rows),
        {
            "coefficients": coefficients,
            "latents": latents,
            "output": output,
            "unconditional": unconditional,
            "guidance_scales": guidance_scales,
            "previous_clean": previous_clean,
            "following": following,
            "clean": clean,
            "size": size,
            "COLUMN_COUNT": coefficients.shape[1],
            "TILE": _TILE,
        },
        warps=4,
        stages=1,
    )
