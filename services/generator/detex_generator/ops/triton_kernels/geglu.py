"""A linear layer whose output is gated by GELU before it is written: the gate's half never goes to memory.

A program computes a tile of the output from two tiles of the weight, that of the values and that of the gates, with one
reading of the input. Programs are taken in groups of rows, so that the tiles of the weight stay in the L2 cache.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from detex_generator.ops.triton_kernels.launch import Launch

_SQRT_HALF = tl.constexpr(math.sqrt(0.5))


@triton.jit
def _geglu(
    hidden,  # (M, WIDTH)
    weight,  # (2 * GATED, WIDTH)
    bias,  # (2 * GATED,)
    output,  # (M, GATED)
    rows,
    WIDTH: tl.constexpr,
    GATED: tl.constexpr,
    ROW_TILE: tl.constexpr,
    COLUMN_TILE: tl.constexpr,
    WIDTH_TILE: tl.constexpr,
    GROUP: tl.constexpr,
    BIASED: tl.constexpr,
):
    program = tl.program_id(0)
    row_tiles = tl.cdiv(rows, ROW_TILE)
    column_tiles = tl.cdiv(GATED, COLUMN_TILE)
    group = program // (GROUP * column_tiles)
    first_row_tile = group * GROUP
    height = tl.minimum(row_tiles - first_row_tile, GROUP)
    row_tile = first_row_tile + (program % (GROUP * column_tiles)) % height
    column_tile = (program % (GROUP * column_tiles)) // height

    row = row_tile * ROW_TILE + tl.arange(0, ROW_TILE)
    column = column_tile * COLUMN_TILE + tl.arange(0, COLUMN_TILE)
    values = tl.zeros([ROW_TILE, COLUMN_TILE], tl.float32)
    gates = tl.zeros([ROW_TILE, COLUMN_TILE], tl.float32)
    hidden_at = row.to(tl.int64) * WIDTH
    for start in range(0, WIDTH, WIDTH_TILE):
        inner = start + tl.arange(0, WIDTH_TILE)
        hidden_mask = (row < rows)[:, None] & (inner < WIDTH)[None, :]
        weight_mask = (column < GATED)[:, None] & (inner < WIDTH)[None, :]
        tile = tl.load(hidden + hidden_at[:, None] + inner[None, :], mask=hidden_mask, other=0.0)
        value_weight = tl.load(weight + column[:, None] * WIDTH + inner[None, :], mask=weight_mask, other=0.0)
        values = tl.dot(tile, tl.trans(value_weight), values)
        gate_weight = tl.load(
            weight + GATED * WIDTH + column[:, None] * WIDTH + inner[None, :], mask=weight_mask, other=0.0
        )
        gates = tl.dot(tile, tl.trans(gate_weight), gates)
    if BIASED:
        values += tl.load(bias + column, mask=column < GATED, other=0.0).to(tl.float32)[None, :]
        gates += tl.load(bias + GATED + column, mask=column < GATED, other=0.0).to(tl.float32)[None, :]
    gated = values * gates * 0.5 * (1.0 + tl.erf(gates * _SQRT_HALF))
    mask = (row < rows)[:, None] & (column < GATED)[None, :]
    at = row.to(tl.int64)[:, None] * GATED + column[None, :]
    tl.store(output + at, gated.to(output.dtype.element_ty), mask=mask)


def plan(hidden: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor) -> Launch:
    """The launch that fills `output`; shapes as in `ops.geglu`, all contiguous."""
    rows, width = hidden.shape
    gated = output.shape[1]
    row_tile = 128 if rows >= 128 else max(16, 1 << (rows - 1).bit_length())
    column_tile = 64 if gated >= 64 else max(16, 1 << (gated - 1).bit_length())
    width_tile = 64 if width >= 64 else max(16, 1 << (width - 1).bit_length())
    return Launch(
        _geglu,
        (triton.cdiv(rows, row_tile) * triton.cdiv(gated, column_tile),),
        {
            "hidden": hidden,
            "weight": weight,
            "bias": weight if bias is None else bias,
            "output": output,
            "rows": rows,
            "WIDTH": width,
            "GATED": gated,
            "ROW_TILE": row_tile,
            "COLUMN_TILE": column_tile,
            "WIDTH_TILE": width_tile,
            "GROUP": 8,
            "BIASED": bias is not None,
        },
        warps=8 if row_tile == 128 else 4,
        stages=4,
    )
