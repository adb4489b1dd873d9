"""GroupNorm with SiLU over channels-last pictures: moments by tile, moments by group, then one pass that applies them.

Tiles cut channels without regard to groups, for a group of Stable Diffusion has 10 to 80 channels and loads want more.
Each tile gives the mean and the sum of squared deviations of every channel; they are put together as in Chan, Golub and
LeVeque 1979 (Updating formulae and a pairwise algorithm), so that nothing large is subtracted from anything large.
"""

import triton
import triton.language as tl
from torch import Tensor

from detex_generator.ops.triton_kernels.launch import Launch


@triton.jit
def _tile_moments(
    images,  # (B, N, C): channels-last
    moments,  # (B, tiles, 2, C) float32: means, then sums of squared deviations
    positions,
    CHANNELS: tl.constexpr,
    POSITION_TILE: tl.constexpr,
    CHANNEL_TILE: tl.constexpr,
):
    tile = tl.program_id(0)
    row = tl.program_id(2)
    tiles = tl.num_programs(0)
    position = tile * POSITION_TILE + tl.arange(0, POSITION_TILE)
    channel = tl.program_id(1) * CHANNEL_TILE + tl.arange(0, CHANNEL_TILE)
    inside = (position < positions)[:, None] & (channel < CHANNELS)[None, :]
    at = (row.to(tl.int64) * positions + position)[:, None] * CHANNELS + channel[None, :]
    pixels = tl.load(images + at, mask=inside, other=0.0).to(tl.float32)
    count = tl.minimum(positions - tile * POSITION_TILE, POSITION_TILE).to(tl.float32)
    mean = tl.sum(pixels, 0) / count
    deviation = tl.where(inside, pixels - mean[None, :], 0.0)
    out = moments + (row * tiles + tile) * 2 * CHANNELS + channel
    tl.store(out, mean, mask=channel < CHANNELS)
    tl.store(out + CHANNELS, tl.sum(deviation * deviation, 0), mask=channel < CHANNELS)


@triton.jit
def _group_moments(
    moments,  # (B, tiles, 2, C) float32
    statistics,  # (B, GROUPS, 2) float32: means, then inverse standard deviations
    epsilon,
    positions,
    tiles,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    POSITION_TILE: tl.constexpr,
    TILE_STEP: tl.constexpr,
    GROUP_WIDTH: tl.constexpr,
):
    group = tl.program_id(0)
    row = tl.program_id(1)
    inner = tl.arange(0, GROUP_WIDTH)
    channel = group * (CHANNELS // GROUPS) + inner
    count = tl.zeros([TILE_STEP, GROUP_WIDTH], tl.float32)
    mean = tl.zeros([TILE_STEP, GROUP_WIDTH], tl.float32)
    squares = tl.zeros([TILE_STEP, GROUP_WIDTH], tl.float32)
    for first in range(0, tiles, TILE_STEP):
        tile = first + tl.arange(0, TILE_STEP)
        held = (tile < tiles)[:, None] & (inner < CHANNELS // GROUPS)[None, :]
        at = (row * tiles + tile)[:, None] * 2 * CHANNELS + channel[None, :]
        added = tl.minimum(positions - tile * POSITION_TILE, POSITION_TILE).to(tl.float32)
        added = tl.where(held, added[:, None], 0.0)
        added_mean = tl.load(moments + at, mask=held, other=0.0)
        added_squares = tl.load(moments + at + CHANNELS, mask=held, other=0.0)
        together = tl.maximum(count + added, 1.0)
        difference = added_mean - mean
        squares += added_squares + difference * difference * count * added / together
        mean += difference * added / together
        count += added
    size = tl.sum(tl.sum(count, 1), 0)
    group_mean = tl.sum(tl.sum(mean * count, 1), 0) / size
    apart = mean - group_mean
    variance = tl.sum(tl.sum(squares + apart * apart * count, 1), 0) / size
    out = statistics + (row * GROUPS + group) * 2
    tl.store(out, group_mean)
    tl.store(out + 1, 1.0 / tl.sqrt(variance + epsilon))


@triton.jit
def _normalise(
    images,  # (B, N, C)
    weight,  # (C,)
    bias,  # (C,)
    statistics,  # (B, GROUPS, 2) float32
    output,  # (B, N, C)
    positions,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    POSITION_TILE: tl.constexpr,
    CHANNEL_TILE: tl.constexpr,
):
    row = tl.program_id(2)
    position = tl.program_id(0) * POSITION_TILE + tl.arange(0, POSITION_TILE)
    channel = tl.program_id(1) * CHANNEL_TILE + tl.arange(0, CHANNEL_TILE)
    known = channel < CHANNELS
    at = (row.to(tl.int64) * positions + position)[:, None] * CHANNELS + channel[None, :]
    inside = (position < positions)[:, None] & known[None, :]
    pixels = tl.load(images + at, mask=inside, other=0.0).to(tl.float32)
    of_group = statistics + (row * GROUPS + channel // (CHANNELS // GROUPS)) * 2
    mean = tl.load(of_group, mask=known, other=0.0)
    factor = tl.load(of_group + 1, mask=known, other=0.0) * tl.load(weight + channel, mask=known, other=0.0)
    shift = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32) - mean * factor
    normal = pixels * factor[None, :] + shift[None, :]
    active = normal / (1.0 + tl.exp(-normal))
    tl.store(output + at, active.to(output.dtype.element_ty), mask=inside)


def tile_size(channels: int) -> tuple[int, int]:
    """Positions and channels of a tile."""
    return 64, min(64, max(16, 1 << (channels - 1).bit_length()))


def plan(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    moments: Tensor,
    statistics: Tensor,
    output: Tensor,
    groups: int,
    epsilon: float,
) -> tuple[Launch, Launch, Launch]:
    """The launches that fill `output` (B, C, h, w), one after the other.

    Args:
        images: (B, C, h, w), contiguous in channels-last order, as is `output`.
        weight: (C,).
        bias: (C,).
        moments: (B, tiles, 2, C) float32, written in between; tiles of `tile_size(C)[0]` of the h w positions.
        statistics: (B, groups, 2) float32, written in between.
        output: (B, C, h, w).
        groups: Divides C.
        epsilon: Added to variances.
    """
    rows, channels, height, width = images.shape
    positions = height * width
    position_tile, channel_tile = tile_size(channels)
    tiles = triton.cdiv(positions, position_tile)
    grid = (tiles, triton.cdiv(channels, channel_tile), rows)
    sizes = {"positions": positions, "CHANNELS": channels, "POSITION_TILE": position_tile}
    return (
        Launch(
            _tile_moments, grid, {"images": images, "moments": moments, "CHANNEL_TILE": channel_tile, **sizes}, 4, 1
        ),
        Launch(
            _group_moments,
            (groups, rows),
            {
                "moments": moments,
                "statistics": statistics,
                "epsilon": epsilon,
                "tiles": tiles,
                "GROUPS": groups,
                "TILE_STEP": 16,
                "GROUP_WIDTH": 1 << (channels // groups - 1).bit_length(),
                **sizes,
            },
            4,
            1,
        ),
        Launch(
            _normalise,
            grid,
            {
                "images": images,
                "weight": weight,
                "bias": bias,
                "statistics": statistics,
                "output": output,
                "GROUPS": groups,
                "CHANNEL_TILE": channel_tile,
                **sizes,
            },
            4,
            1,
        ),
    )
