"""Cross-attention of image positions over pages of a pool of keys and values, page by page, in one pass.

A program computes a tile of positions of one head of one row. It walks the pages of its row; pages are sorted by
segment, so a softmax that belongs to one segment is complete when the next one begins. Scores are kept in base 2.

- A segment's log-weight is one number per position, so it is added to scores that are being scaled anyhow.
- A tile of positions in which no position reads a segment passes over all of that segment's tokens.
- The sum of a segment is kept apart from that of the segments before it, so its log-sum-exp is available when it ends.
- Blended rows close the softmax at the end of each segment and mix it in with the segment's weight; the sum of weights
  divides at the very end. Joint rows never close it before the end.

Head dims are indexed as `head * HEAD_DIM` with a constant: as a run-time stride 40 would not be known to be a multiple
of 8, and loads would fall to two bytes.
"""

import math
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from detex_generator.ops.triton_kernels.head_split import split_head
from detex_generator.ops.triton_kernels.launch import Launch

LOG2_E: Final = math.log2(math.e)
_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _segmented_attention(
    query,  # (B, N, HEADS, HEAD_DIM)
    key,  # (pool, HEADS, HEAD_DIM)
    value,  # (pool, HEADS, HEAD_DIM)
    page_starts,  # (B, P) int32
    page_lengths,  # (B, P) int32
    page_segments,  # (B, P) int32, never falling
    log_weights,  # (B, S, N) float32
    joint,  # (B,) int8
    output,  # (B, N, HEADS, HEAD_DIM)
    log_sum_exp,  # (B, HEADS, S, N) float32
    scale,  # of scores, times log2(e)
    positions,
    pages,
    segments,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    POSITION_TILE: tl.constexpr,
    TOKEN_TILE: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLENDED: tl.constexpr,
    CAPTURED: tl.constexpr,
):
    minus_infinity = float("-inf")
    head = tl.program_id(1)
    row = tl.program_id(2)
    here = tl.program_id(0) * POSITION_TILE + tl.arange(0, POSITION_TILE)
    inside = here < positions
    dims = tl.arange(0, FIRST)
    at = (row.to(tl.int64) * positions + here) * (HEADS * HEAD_DIM) + head * HEAD_DIM
    mask = inside[:, None] & (dims < HEAD_DIM)[None, :]
    query_first = tl.load(query + at[:, None] + dims[None, :], mask=mask, other=0.0)
    if SECOND:
        more_dims = FIRST + tl.arange(0, SECOND)
        more_mask = inside[:, None] & (more_dims < HEAD_DIM)[None, :]
        query_second = tl.load(query + at[:, None] + more_dims[None, :], mask=more_mask, other=0.0)

    is_joint = tl.load(joint + row) != 0
    # The softmax that is open: largest score, sum of its ended segments, of the present one, and of values.
    largest = tl.full([POSITION_TILE], minus_infinity, tl.float32)
    total = tl.zeros([POSITION_TILE], tl.float32)
    present = tl.zeros([POSITION_TILE], tl.float32)
    sum_first = tl.zeros([POSITION_TILE, FIRST], tl.float32)
    if SECOND:
        sum_second = tl.zeros([POSITION_TILE, SECOND], tl.float32)
    if BLENDED:
        # The mixture of softmaxes that are closed: largest log-weight, sum of weights and of weighted outputs.
        mixed_largest = tl.full([POSITION_TILE], minus_infinity, tl.float32)
        mixed_total = tl.zeros([POSITION_TILE], tl.float32)
        mixed_first = tl.zeros([POSITION_TILE, FIRST], tl.float32)
        if SECOND:
            mixed_second = tl.zeros([POSITION_TILE, SECOND], tl.float32)

    for page in range(pages):
        start = tl.load(page_starts + row * pages + page)
        length = tl.load(page_lengths + row * pages + page)
        segment = tl.load(page_segments + row * pages + page)
        following = tl.load(page_segments + row * pages + page + 1, mask=page + 1 < pages, other=-1)
        ends = following != segment
        if WEIGHTED:
            weight_at = (row.to(tl.int64) * segments + segment) * positions + here
            weight = tl.load(log_weights + weight_at, mask=inside, other=minus_infinity) * _LOG2_E
            length = tl.where(tl.max(weight, 0) > minus_infinity, length, 0)
            bias = tl.where(is_joint, weight, 0.0)
        for first_token in range(0, length, TOKEN_TILE):
            tokens = first_token + tl.arange(0, TOKEN_TILE)
            held = tokens < length
            token_at = (start + tokens).to(tl.int64) * (HEADS * HEAD_DIM) + head * HEAD_DIM
            token_mask = held[:, None] & (dims < HEAD_DIM)[None, :]
            keys = tl.load(key + token_at[:, None] + dims[None, :], mask=token_mask, other=0.0)
            scores = tl.dot(query_first, tl.trans(keys))
            if SECOND:
                more_token_mask = held[:, None] & (more_dims < HEAD_DIM)[None, :]
                more_keys = tl.load(key + token_at[:, None] + more_dims[None, :], mask=more_token_mask, other=0.0)
                scores = tl.dot(query_second, tl.trans(more_keys), scores)
            scores = scores * scale
            if WEIGHTED:
                scores = scores + bias[:, None]
            scores = tl.where(held[None, :], scores, minus_infinity)
            new_largest = tl.maximum(largest, tl.max(scores, 1))
            # Where nothing has been read yet, minus infinity less minus infinity would be no number.
            shift = tl.where(new_largest == minus_infinity, 0.0, new_largest)
            shrink = tl.exp2(largest - shift)
            mass = tl.exp2(scores - shift[:, None])
            largest = new_largest
            total = total * shrink
            present = present * shrink + tl.sum(mass, 1)
            values = tl.load(value + token_at[:, None] + dims[None, :], mask=token_mask, other=0.0)
            sum_first = tl.dot(mass.to(values.dtype), values, sum_first * shrink[:, None])
            if SECOND:
                more_values = tl.load(value + token_at[:, None] + more_dims[None, :], mask=more_token_mask, other=0.0)
                sum_second = tl.dot(mass.to(values.dtype), more_values, sum_second * shrink[:, None])

        if CAPTURED:
            captured = (largest + tl.log2(present)) * _LN_2
            read = present > 0
            if WEIGHTED:
                captured = captured - tl.where(read, bias, 0.0) * _LN_2
                read = read & (weight > minus_infinity)
            capture_at = ((row.to(tl.int64) * HEADS + head) * segments + segment) * positions + here
            known = here < tl.where(ends, positions, 0)
            tl.store(log_sum_exp + capture_at, tl.where(read, captured, minus_infinity), mask=known)
        if ends:
            total = total + present
            present = tl.zeros([POSITION_TILE], tl.float32)
            if BLENDED:
                if not is_joint:
                    entry = tl.zeros([POSITION_TILE], tl.float32)
                    if WEIGHTED:
                        entry = weight
                    entry = tl.where(total > 0, entry, minus_infinity)
                    new_mixed_largest = tl.maximum(mixed_largest, entry)
                    mixed_shift = tl.where(new_mixed_largest == minus_infinity, 0.0, new_mixed_largest)
                    mixed_shrink = tl.exp2(mixed_largest - mixed_shift)
                    gain = tl.exp2(entry - mixed_shift)
                    mixed_largest = new_mixed_largest
                    mixed_total = mixed_total * mixed_shrink + gain
                    gain = gain / tl.where(total > 0, total, 1.0)
                    mixed_first = mixed_first * mixed_shrink[:, None] + sum_first * gain[:, None]
                    sum_first = tl.zeros([POSITION_TILE, FIRST], tl.float32)
                    if SECOND:
                        mixed_second = mixed_second * mixed_shrink[:, None] + sum_second * gain[:, None]
                        sum_second = tl.zeros([POSITION_TILE, SECOND], tl.float32)
                    largest = tl.full([POSITION_TILE], minus_infinity, tl.float32)
                    total = tl.zeros([POSITION_TILE], tl.float32)

    if BLENDED:
        if not is_joint:
            total = mixed_total
            sum_first = mixed_first
            if SECOND:
                sum_second = mixed_second
    factor = 1.0 / tl.where(total > 0, total, 1.0)
    element = output.dtype.element_ty
    tl.store(output + at[:, None] + dims[None, :], (sum_first * factor[:, None]).to(element), mask=mask)
    if SECOND:
        tl.store(output + at[:, None] + more_dims[None, :], (sum_second * factor[:, None]).to(element), mask=more_mask)


def plan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    page_starts: Tensor,
    page_lengths: Tensor,
    page_segments: Tensor,
    log_weights: Tensor | None,
    joint: Tensor,
    output: Tensor,
    log_sum_exp: Tensor | None,
    *,
    segments: int,
    blended: bool,
) -> Launch:
    """The launch that fills `output` and, where given, `log_sum_exp`; shapes as in `ops.segmented_attention`.

    All tensors are contiguous. `log_sum_exp` holds minus infinity before the launch. Where not `blended`, no row of
    `joint` may be false.
    """
    rows, positions, heads, head_dim = query.shape
    first, second = split_head(head_dim)
    wide = head_dim > 96  # sums of values alone take 80 registers of a thread, twice that where blended
    position_tile = 64 if positions >= 64 else max(16, 1 << (positions - 1).bit_length())
    return Launch(
        _segmented_attention,
        (triton.cdiv(positions, position_tile), heads, rows),
        {
            "query": query,
            "key": key,
            "value": value,
            "page_starts": page_starts,
            "page_lengths": page_lengths,
            "page_segments": page_segments,
            # Parameters that a variant does not read still need a pointer.
            "log_weights": output if log_weights is None else log_weights,
            "joint": joint,
            "output": output,
            "log_sum_exp": output if log_sum_exp is None else log_sum_exp,
            "scale": head_dim**-0.5 * LOG2_E,
            "positions": positions,
            "pages": page_starts.shape[1],
            "segments": segments,
            "HEADS": heads,
            "HEAD_DIM": head_dim,
            "FIRST": first,
            "SECOND": second,
            "POSITION_TILE": position_tile,
            "TOKEN_TILE": 16 if wide else 32,
            "WEIGHTED": log_weights is not None,
            "BLENDED": blended,
            "CAPTURED": log_sum_exp is not None,
        },
        warps=8 if wide and blended else 4,
        stages=2,
    )
