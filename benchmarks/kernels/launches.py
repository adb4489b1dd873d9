"""Launches at the shapes of Stable Diffusion, planned on tensors that hold no memory."""

from functools import partial

import torch

from detex_generator.ops.triton_kernels import (
    geglu,
    group_norm_silu,
    guided_solver_step,
    segmented_attention,
    self_attention,
)
from detex_generator.ops.triton_kernels.launch import Launch
from detex_generator.ops.triton_kernels.self_attention import TILINGS

empty = partial(torch.empty, device="meta")
half = partial(empty, dtype=torch.float16)
whole = partial(empty, dtype=torch.int32)


def cross(positions: int, heads: int, head_dim: int, *, weighted: bool, blended: bool, captured: bool) -> Launch:
    """Segmented attention of 16 rows with 4 pages and 3 segments."""
    query = half(16, positions, heads, head_dim)
    pool = half(2048, heads, head_dim)
    pages = whole(16, 4)
    return segmented_attention.plan(
        query,
        pool,
        pool,
        pages,
        pages,
        pages,
        empty(16, 3, positions) if weighted else None,
        empty(16, dtype=torch.int8),
        query,
        empty(16, heads, 3, positions) if captured else None,
        segments=3,
        blended=blended,
    )


def attention(positions: int, heads: int, head_dim: int, tiling: int = 0, dtype: torch.dtype = torch.float16) -> Launch:
    """Self-attention of 16 rows with one of the tilings that are compared."""
    tensor = empty(16, positions, heads, head_dim, dtype=dtype)
    return self_attention.plan(tensor, tensor, tensor, tensor, TILINGS[tiling])


def feed_forward(rows: int, width: int) -> Launch:
    """The gated layer of a transformer block."""
    return geglu.plan(half(rows, width), half(8 * width, width), half(8 * width), half(rows, 4 * width))


def norms(channels: int, side: int) -> tuple[Launch, Launch, Launch]:
    """GroupNorm and SiLU of 16 rows."""
    images = half(16, channels, side, side)
    tiles = -(-side * side // group_norm_silu.tile_size(channels)[0])
    moments, statistics = empty(16, tiles, 2, channels), empty(16, 32, 2)
    return group_norm_silu.plan(images, half(channels), half(channels), moments, statistics, images, 32, 1e-5)


def step() -> Launch:
    """Guidance and solver of 16 images of 512 by 512 pixels."""
    latents = empty(16, 4, 64, 64)
    return guided_solver_step.plan(
        empty(16, 9), latents, half(32, 4, 64, 64), whole(16), empty(16), latents, latents, latents
    )


MATRIX_LAUNCHES = {
    "cross, head dim 40, plain": cross(4096, 8, 40, weighted=False, blended=False, captured=False),
    "cross, head dim 40, all": cross(4096, 8, 40, weighted=True, blended=True, captured=True),
    "cross, head dim 80, all": cross(1024, 8, 80, weighted=True, blended=True, captured=True),
    "cross, head dim 160, joint": cross(256, 8, 160, weighted=True, blended=False, captured=False),
    "cross, head dim 160, all": cross(256, 8, 160, weighted=True, blended=True, captured=True),
    "cross, head dim 64, all": cross(4096, 10, 64, weighted=True, blended=True, captured=True),
    "self, head dim 40": attention(4096, 8, 40),
    "self, head dim 40, bfloat16": attention(4096, 8, 40, dtype=torch.bfloat16),
    "self, head dim 40, column of ones": attention(4096, 8, 40, 4),
    "self, head dim 80": attention(1024, 8, 80),
    "geglu, width 320": feed_forward(16 * 4096, 320),
    "geglu, width 1280": feed_forward(16 * 256, 1280),
}
"""Launches that multiply matrices."""

ELEMENT_LAUNCHES = {
    "norm, moments of tiles": norms(320, 64)[0],
    "norm, moments of groups": norms(320, 64)[1],
    "norm, applied": norms(320, 64)[2],
    "norm, applied, 960 channels": norms(960, 64)[2],
    "solver step": step(),
}
"""Launches that do not."""
