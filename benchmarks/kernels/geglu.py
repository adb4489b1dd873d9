"""GEGLU in one product with its epilogue against a product and an activation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.kernels.contest import Contest, Inputs, input_sets
from detex_generator.ops.geglu import geglu
from detex_generator.ops.operation import Implementation
from detex_generator.ops.references import geglu as reference

ROWS = 16
LEVELS = ((4096, 320), (1024, 640), (256, 1280))
"""Positions and widths of Stable Diffusion 1.5 at 512 by 512 pixels."""


def contests(device: torch.device, dtype: torch.dtype) -> Iterator[Contest]:
    """Against torch as it comes, and compiled."""
    for positions, width in LEVELS:
        yield _contest(ROWS * positions, width, device, dtype)


def cpu_contests() -> Iterator[Contest]:
    """Torch's two calls against the error function written out."""
    yield _contest(256, 320, torch.device("cpu"), torch.float32)


def _contest(rows: int, width: int, device: torch.device, dtype: torch.dtype) -> Contest:
    set_bytes = (rows * width + 8 * width * width + rows * 4 * width) * dtype.itemsize
    sets = input_sets(lambda seed: _inputs(seed, rows, width, device, dtype), set_bytes, device)
    compiled = torch.compile(reference.geglu, dynamic=False)  # when it is first called

    def by_torch(index: int) -> Tensor:
        hidden, weight, bias = sets[index]
        return reference.geglu(hidden, weight, bias)

    def by_compiled(index: int) -> Tensor:
        hidden, weight, bias = sets[index]
        return compiled(hidden, weight, bias)

    def by_kernel(index: int) -> Tensor:
        hidden, weight, bias = sets[index]
        return geglu(hidden, weight, bias, Implementation.TRITON)

    def written_out(index: int) -> Tensor:
        hidden, weight, bias = sets[index]
        values, gates = (hidden @ weight.T + bias).chunk(2, dim=-1)
        return values * gates * 0.5 * (1 + torch.erf(gates * 0.5**0.5))

    def wanted() -> Tensor:
        hidden, weight, bias = (tensor.double() for tensor in sets[0])
        return reference.geglu(hidden, weight, bias)

    what = f"GEGLU, {rows} rows, width {width}"
    if device.type != "cuda":
        return Contest(what, set_bytes, {"torch reference": by_torch}, {"written out": written_out}, wanted)
    return Contest(what, set_bytes, {"triton": by_kernel}, {"torch": by_torch, "compiled": by_compiled}, wanted)


def _inputs(seed: int, rows: int, width: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    shapes = ((rows, width), (8 * width, width), (8 * width,))
    hidden, weight, bias = (torch.randn(shape, generator=generator, device=device) for shape in shapes)
    return hidden.to(dtype), (weight * width**-0.5).to(dtype), bias.to(dtype)
