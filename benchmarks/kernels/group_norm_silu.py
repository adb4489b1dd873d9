"""GroupNorm and SiLU over channels-last pictures in one operation against two."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.contest import Contest, Inputs, input_sets
from detex_generator.ops.group_norm_silu import group_norm_silu
from detex_generator.ops.operation import Implementation
from detex_generator.ops.references import group_norm_silu as reference

ROWS, GROUPS, EPSILON = 16, 32, 1e-5
SHAPES = ((320, 64), (960, 64), (640, 32), (1280, 16))
"""Channels and sides of residual blocks of Stable Diffusion 1.5 at 512 by 512 pixels."""


def contests(device: torch.device, dtype: torch.dtype) -> Iterator[Contest]:
    """Against torch as it comes, and compiled."""
    for channels, side in SHAPES:
        yield _contest((ROWS, channels, side, side), device, dtype)


def cpu_contests() -> Iterator[Contest]:
    """Torch's two calls against moments written out."""
    yield _contest((2, 320, 32, 32), torch.device("cpu"), torch.float32)


def _contest(shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> Contest:
    rows, channels, height, width = shape
    set_bytes = 2 * rows * channels * height * width * dtype.itemsize
    sets = input_sets(lambda seed: _inputs(seed, shape, device, dtype), set_bytes, device)
    compiled = torch.compile(reference.group_norm_silu, dynamic=False)  # when it is first called

    def by_torch(index: int) -> Tensor:
        images, weight, bias = sets[index]
        return reference.group_norm_silu(images, weight, bias, GROUPS, EPSILON)

    def by_compiled(index: int) -> Tensor:
        images, weight, bias = sets[index]
        return compiled(images, weight, bias, GROUPS, EPSILON)

    def by_kernel(index: int) -> Tensor:
        images, weight, bias = sets[index]
        return group_norm_silu(images, weight, bias, GROUPS, EPSILON, Implementation.TRITON)

    def written_out(index: int) -> Tensor:
        images, weight, bias = sets[index]
        groups = images.reshape(rows, GROUPS, -1)
        variance, mean = torch.var_mean(groups, dim=-1, correction=0, keepdim=True)
        normal = ((groups - mean) * (variance + EPSILON).rsqrt()).view(shape)
        return functional.silu(normal * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1))

    def wanted() -> Tensor:
        images, weight, bias = (tensor.double() for tensor in sets[0])
        return reference.group_norm_silu(images, weight, bias, GROUPS, EPSILON)

    what = f"GroupNorm and SiLU, {rows} rows, {channels} channels, {height} by {width}"
    if device.type != "cuda":
        return Contest(what, set_bytes, {"torch reference": by_torch}, {"written out": written_out}, wanted)
    return Contest(what, set_bytes, {"triton": by_kernel}, {"torch": by_torch, "compiled": by_compiled}, wanted)


def _inputs(seed: int, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    shapes = (shape, shape[1:2], shape[1:2])
    images, weight, bias = (torch.randn(each, generator=generator, device=device).to(dtype) for each in shapes)
    return images.contiguous(memory_format=torch.channels_last), weight, bias
