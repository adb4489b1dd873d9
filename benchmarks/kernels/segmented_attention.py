"""Cross-attention: one text length, ragged texts of several concepts, and regions with captured attention maps."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.contest import Contest, Inputs, backends, input_sets
from benchmarks.kernels.timing import Call
from detex_generator.ops.operation import Implementation
from detex_generator.ops.references import segmented_attention as reference
from detex_generator.ops.segmented_attention import (
    PageLayout,
    segmented_attention,
    segmented_attention_with_sums,
)

ROWS, HEADS = 16, 8
LEVELS = ((4096, 40), (1024, 80), (256, 160))
"""Positions and head dims of Stable Diffusion 1.5 at 512 by 512 pixels."""

RAGGED = [16, 308, 77, 154, 24, 231, 77, 40, 77, 100, 18, 300, 77, 60, 200, 33]
"""Tokens of each row."""

REGIONS = [77, 20, 30]
"""Tokens of the scene and of two subjects."""


def contests(device: torch.device, dtype: torch.dtype) -> Iterator[Contest]:
    """Against torch on texts that are filled up to the longest, with a mask."""
    for positions, head_dim in LEVELS:
        yield _plain(
            f"cross-attention, {positions} positions, 77 tokens", positions, head_dim, [77] * ROWS, device, dtype
        )
    yield _plain("cross-attention, 4096 positions, 16 to 308 tokens", 4096, 40, RAGGED, device, dtype, reach=1.3)
    yield _regional(4096, 40, ROWS, device, dtype, reach=1.5)


def cpu_contests() -> Iterator[Contest]:
    """Torch on gathered pages against torch on texts that are filled up, with a mask."""
    device = torch.device("cpu")
    yield _plain("cross-attention, 1024 positions, 16 to 308 tokens", 1024, 40, RAGGED[:4], device, torch.float32)
    yield _regional(1024, 40, 2, device, torch.float32)


def _plain(
    what: str,
    positions: int,
    head_dim: int,
    lengths: list[int],
    device: torch.device,
    dtype: torch.dtype,
    reach: float | None = None,
) -> Contest:
    rows, longest = len(lengths), max(lengths)
    starts = [sum(lengths[:row]) for row in range(rows)]
    layout = PageLayout.of_rows(
        [[(start, length, 0)] for start, length in zip(starts, lengths, strict=True)], [True] * rows, device=device
    )
    set_bytes = (2 * rows * positions + 2 * sum(lengths)) * HEADS * head_dim * dtype.itemsize
    sets = input_sets(
        lambda seed: _inputs(seed, (rows, positions, HEADS, head_dim), sum(lengths), device, dtype), set_bytes, device
    )
    # The same texts as torch wants them: a batch, filled up, heads first, with a mask only where one is needed.
    batches = [tuple(_filled(pool, starts, lengths, longest) for pool in (key, value)) for _, key, value in sets]
    mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)
    attended_mask = None if min(lengths) == longest else mask[:, None, None, :]

    def by_torch(index: int) -> Tensor:
        key, value = batches[index]
        return functional.scaled_dot_product_attention(sets[index][0].transpose(1, 2), key, value, attended_mask)

    def by_pages(index: int) -> Tensor:
        query, key, value = sets[index]
        return segmented_attention(query, key, value, layout, None, _implementation(device))

    def wanted() -> Tensor:
        query, key, value = (tensor.double() for tensor in sets[0])
        return segmented_attention(query, key, value, layout, None, Implementation.TORCH)

    # The kernel writes positions first, as the next layer reads them; torch writes heads first and so is transposed.
    transposed = _positions_first(by_torch)
    peers = backends(transposed) if device.type == "cuda" else {"filled up and masked": transposed}
    ours = {_implementation(device).value: by_pages}
    return Contest(what, set_bytes, ours, peers, wanted, 1.0 if reach is None and device.type == "cuda" else reach)


def _regional(
    positions: int, head_dim: int, rows: int, device: torch.device, dtype: torch.dtype, reach: float | None = None
) -> Contest:
    """Three segments in one softmax: the kernel gives attention maps as well, the masked call does not."""
    tokens = sum(REGIONS)
    pages = [(sum(REGIONS[:segment]), length, segment) for segment, length in enumerate(REGIONS)]
    layout = PageLayout.of_rows(
        [[(row * tokens + start, length, segment) for start, length, segment in pages] for row in range(rows)],
        [True] * rows,
        device=device,
    )
    log_weights = torch.zeros(rows, len(REGIONS), positions, device=device)
    log_weights[:, 1, positions // 2 :] = float("-inf")
    log_weights[:, 2, : positions // 2] = float("-inf")
    owners = torch.repeat_interleave(torch.arange(len(REGIONS)), torch.tensor(REGIONS)).to(device)
    bias = log_weights[:, owners].transpose(1, 2).unsqueeze(1).to(dtype).contiguous()  # (B, 1, N, T)
    set_bytes = (2 * rows * positions + 2 * rows * tokens) * HEADS * head_dim * dtype.itemsize
    sets = input_sets(
        lambda seed: _inputs(seed, (rows, positions, HEADS, head_dim), rows * tokens, device, dtype), set_bytes, device
    )

    def by_torch(index: int) -> Tensor:
        query, key, value = sets[index]
        batch = [pool.view(rows, tokens, HEADS, head_dim).transpose(1, 2) for pool in (key, value)]
        return functional.scaled_dot_product_attention(query.transpose(1, 2), batch[0], batch[1], bias)

    def by_pages(index: int) -> tuple[Tensor, Tensor]:
        query, key, value = sets[index]
        return segmented_attention_with_sums(query, key, value, layout, log_weights, _implementation(device))

    def wanted() -> Tensor:
        query, key, value = (tensor.double() for tensor in sets[0])
        return reference.segmented_attention(
            query, key, value, layout.starts, layout.lengths, layout.segments, log_weights, layout.joint, 3, False
        )[0]

    transposed = _positions_first(by_torch)
    peers = backends(transposed) if device.type == "cuda" else {"masked": transposed}
    return Contest(
        f"cross-attention, {positions} positions, 3 regions, attention maps captured",
        set_bytes,
        {_implementation(device).value: by_pages},
        peers,
        wanted,
        reach,
    )


def _implementation(device: torch.device) -> Implementation:
    return Implementation.TRITON if device.type == "cuda" else Implementation.TORCH


def _positions_first(call: Callable[[int], Tensor]) -> Call:
    def run(index: int) -> Tensor:
        return call(index).transpose(1, 2)

    return run


def _inputs(seed: int, shape: tuple[int, ...], tokens: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    shapes = (shape, (tokens, *shape[2:]), (tokens, *shape[2:]))
    return tuple(torch.randn(each, generator=generator, device=device).to(dtype) for each in shapes)


def _filled(pool: Tensor, starts: list[int], lengths: list[int], longest: int) -> Tensor:
    """(B, H, T, D) of a pool (L, H, D), zeros after the end of shorter rows."""
    batch = pool.new_zeros(len(starts), longest, *pool.shape[1:])
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        batch[row, :length] = pool[start : start + length]
    return batch.transpose(1, 2).contiguous()
