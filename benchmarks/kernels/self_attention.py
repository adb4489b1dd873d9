"""Self-attention for head dims 40 and 80 against every backend of torch."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.contest import Contest, Inputs, backends, input_sets
from benchmarks.kernels.timing import Call
from detex_generator.ops.operation import Implementation
from detex_generator.ops.references import self_attention as reference
from detex_generator.ops.self_attention import self_attention

ROWS = 16
SHAPES = ((4096, 8, 40, 1.05), (1024, 8, 80, 1.05))
"""Positions, heads, head dim and reach at 512 by 512 pixels."""


def contests(device: torch.device, dtype: torch.dtype) -> Iterator[Contest]:
    """At the shapes of Stable Diffusion 1.5 and a batch of 16 rows."""
    for positions, heads, head_dim, reach in SHAPES:
        shape = (ROWS, positions, heads, head_dim)
        set_bytes = 4 * ROWS * positions * heads * head_dim * dtype.itemsize
        sets = input_sets(partial(_inputs, shape=shape, device=device, dtype=dtype), set_bytes, device)
        yield Contest(
            f"self-attention, {positions} positions, head dim {head_dim}, {ROWS} rows",
            set_bytes,
            {"triton": _by_kernel(sets)} | _tilings(sets),
            backends(partial(_by_torch, sets)),
            partial(_double_precision, sets[0]),
            reach,
        )


def cpu_contests() -> Iterator[Contest]:
    """Torch's one call against its definition written out."""
    device, shape = torch.device("cpu"), (2, 256, 8, 40)
    set_bytes = 4 * 2 * 256 * 8 * 40 * 4
    sets = input_sets(partial(_inputs, shape=shape, device=device, dtype=torch.float32), set_bytes, device)

    def naive(index: int) -> Tensor:
        query, key, value = (tensor.transpose(1, 2) for tensor in sets[index])
        probabilities = (query @ key.transpose(-1, -2) * (1 / math.sqrt(shape[-1]))).softmax(dim=-1)
        return (probabilities @ value).transpose(1, 2)

    yield Contest(
        "self-attention, 256 positions, head dim 40, 2 rows",
        set_bytes,
        {"torch reference": partial(_by_torch, sets)},
        {"written out": naive},
        partial(_double_precision, sets[0]),
    )


def _by_torch(sets: list[Inputs], index: int) -> Tensor:
    query, key, value = sets[index]
    return reference.self_attention(query, key, value)


def _by_kernel(sets: list[Inputs]) -> Call:
    def call(index: int) -> Tensor:
        query, key, value = sets[index]
        return self_attention(query, key, value, Implementation.TRITON)

    return call


def _tilings(sets: list[Inputs]) -> dict[str, Call]:
    """The other ways to cut the work, for whoever tunes."""
    from detex_generator.ops.triton_kernels.self_attention import TILINGS, Tiling, plan

    output = torch.empty_like(sets[0][0])

    def variant(tiling: Tiling) -> Call:
        def call(index: int) -> Tensor:
            query, key, value = sets[index]
            plan(query, key, value, output, tiling).run()
            return output

        return call

    fitting = [tiling for tiling in TILINGS[1:] if not tiling.ones or sets[0][0].shape[-1] == 40]
    return {f"triton {tiling}": variant(tiling) for tiling in fitting}


def _inputs(seed: int, *, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    query, key, value = (torch.randn(shape, generator=generator, device=device).to(dtype) for _ in range(3))
    return query, key, value


def _double_precision(inputs: Inputs) -> Tensor:
    """Row by row, for the scores of all rows at once would take tens of GB."""
    rows = [
        reference.self_attention(*(tensor[row : row + 1].double() for tensor in inputs))
        for row in range(inputs[0].shape[0])
    ]
    return torch.cat(rows)
