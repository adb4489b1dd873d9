"""Self-attention for head dims that are no power of two, in two parts (see `head_split`).

The loop is that of FlashAttention-2 (Dao 2023, arXiv 2307.08691), forward, no mask, no dropout: a program computes a
tile of positions of one head and walks over tiles of keys and values with a running softmax in base 2. Where the second
part is filled up, a column of ones in the values' filler can give the sums of rows as part of the product with them.
"""

import math
from dataclasses import dataclass
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from detex_generator.ops.triton_kernels.head_split import padded_head, split_head
from detex_generator.ops.triton_kernels.launch import Launch

LOG2_E: Final = math.log2(math.e)


@triton.jit
def _self_attention(
    query,  # (B, N, HEADS, HEAD_DIM)
    key,  # (B, N, HEADS, HEAD_DIM)
    value,  # (B, N, HEADS, HEAD_DIM)
    output,  # (B, N, HEADS, HEAD_DIM)
    scale,  # of scores, times log2(e)
    positions,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    QUERY_TILE: tl.constexpr,
    KEY_TILE: tl.constexpr,
    EVEN: tl.constexpr,
    ONES: tl.constexpr,
):
    minus_infinity = float("-inf")
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    here = tl.program_id(0) * QUERY_TILE + tl.arange(0, QUERY_TILE)
    inside = here < positions
    dims = tl.arange(0, FIRST)
    base = row * positions * (HEADS * HEAD_DIM) + head * HEAD_DIM
    at = here * (HEADS * HEAD_DIM)
    mask = inside[:, None] & (dims < HEAD_DIM)[None, :]
    query_first = tl.load(query + base + at[:, None] + dims[None, :], mask=mask, other=0.0)
    if SECOND:
        more_dims = FIRST + tl.arange(0, SECOND)
        more_mask = inside[:, None] & (more_dims < HEAD_DIM)[None, :]
        query_second = tl.load(query + base + at[:, None] + more_dims[None, :], mask=more_mask, other=0.0)

    largest = tl.full([QUERY_TILE], minus_infinity, tl.float32)
    total = tl.zeros([QUERY_TILE], tl.float32)
    sum_first = tl.zeros([QUERY_TILE, FIRST], tl.float32)
    if SECOND:
        sum_second = tl.zeros([QUERY_TILE, SECOND], tl.float32)
    for first_key in range(0, positions, KEY_TILE):
        there = first_key + tl.arange(0, KEY_TILE)
        there_at = there * (HEADS * HEAD_DIM)
        token_mask = (dims < HEAD_DIM)[None, :]
        if not EVEN:
            token_mask = token_mask & (there < positions)[:, None]
        keys = tl.load(key + base + there_at[:, None] + dims[None, :], mask=token_mask, other=0.0)
        scores = tl.dot(query_first, tl.trans(keys))
        if SECOND:
            more_token_mask = (more_dims < HEAD_DIM)[None, :]
            if not EVEN:
                more_token_mask = more_token_mask & (there < positions)[:, None]
            more_keys = tl.load(key + base + there_at[:, None] + more_dims[None, :], mask=more_token_mask, other=0.0)
            scores = tl.dot(query_second, tl.trans(more_keys), scores)
        if not EVEN:
            scores = tl.where((there < positions)[None, :], scores, minus_infinity)
        new_largest = tl.maximum(largest, tl.max(scores, 1) * scale)
        shrink = tl.exp2(largest - new_largest)
        mass = tl.exp2(scores * scale - new_largest[:, None])
        largest = new_largest
        if not ONES:
            total = total * shrink + tl.sum(mass, 1)
        values = tl.load(value + base + there_at[:, None] + dims[None, :], mask=token_mask, other=0.0)
        mass = mass.to(values.dtype)
        sum_first = tl.dot(mass, values, sum_first * shrink[:, None])
        if SECOND:
            more_values = tl.load(
                value + base + there_at[:, None] + more_dims[None, :], mask=more_token_mask, other=0.0
            )
            if ONES:
                more_values = tl.where((more_dims == HEAD_DIM)[None, :], 1.0, more_values).to(values.dtype)
            sum_second = tl.dot(mass, more_values, sum_second * shrink[:, None])

    if ONES:
        total = tl.sum(tl.where((more_dims == HEAD_DIM)[None, :], sum_second, 0.0), 1)
    factor = 1.0 / total
    element = output.dtype.element_ty
    tl.store(output + base + at[:, None] + dims[None, :], (sum_first * factor[:, None]).to(element), mask=mask)
    if SECOND:
        result = (sum_second * factor[:, None]).to(element)
        tl.store(output + base + at[:, None] + more_dims[None, :], result, mask=more_mask)


@dataclass(frozen=True)
class Tiling:
    """How the work is cut; results do not depend on it but for rounding.

    Attributes:
        query_tile: Positions of a program.
        key_tile: Keys and values of a turn of the loop.
        warps: Warps of a program.
        stages: Turns of the loop with loads in flight.
        padded: Whether the head is filled up to one power of two, in place of two parts.
        ones: Whether a column of ones gives the sums of rows; only where the second part is filled up.
    """

    query_tile: int
    key_tile: int
    warps: int
    stages: int
    padded: bool = False
    ones: bool = False


TILINGS: Final = (
    Tiling(64, 128, 4, 2),
    Tiling(64, 64, 4, 3),
    Tiling(128, 64, 4, 2),
    Tiling(128, 128, 8, 2),
    Tiling(64, 128, 4, 2, ones=True),
    Tiling(128, 64, 8, 3, padded=True),
)
"""Those that the benchmark compares; the first is used."""


def plan(query: Tensor, key: Tensor, value: Tensor, output: Tensor, tiling: Tiling | None = None) -> Launch:
    """The launch that fills `output`; shapes as in `ops.self_attention`, all contiguous.

    Raises:
        ValueError: The tiling asks for a column of ones where no filler has room for it.
    """
    rows, positions, heads, head_dim = query.shape
    if tiling is None:
        smallest = max(16, 1 << (positions - 1).bit_length())
        tiling = TILINGS[0] if positions >= 128 else Tiling(min(64, smallest), min(64, smallest), 4, 2)
    first, second = (padded_head if tiling.padded else split_head)(head_dim)
    if tiling.ones and first + second == head_dim:
        raise ValueError(f"head dim {head_dim} leaves no filler for a column of ones")
    if tiling.ones and not second:
        raise ValueError("a column of ones needs a second part")
    return Launch(
        _self_attention,
        (triton.cdiv(positions, tiling.query_tile), heads, rows),
        {
            "query": query,
            "key": key,
            "value": value,
            "output": output,
            "scale": head_dim**-0.5 * LOG2_E,
            "positions": positions,
            "HEADS": heads,
            "HEAD_DIM": head_dim,
            "FIRST": first,
            "SECOND": second,
            "QUERY_TILE": tiling.query_tile,
            "KEY_TILE": tiling.key_tile,
            "EVEN": positions % tiling.key_tile == 0,
            "ONES": tiling.ones,
        },
        warps=tiling.warps,
        stages=tiling.stages,
    )
