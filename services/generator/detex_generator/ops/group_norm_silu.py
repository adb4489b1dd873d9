"""GroupNorm with the activation that follows it everywhere in residual blocks.

Legend: B rows, C channels, h and w height and width.
"""

import torch
from torch import Tensor

from detex_generator.ops.availability import check_available
from detex_generator.ops.operation import Implementation, Operation
from detex_generator.ops.references import group_norm_silu as reference


def group_norm_silu(
    images: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float, implementation: Implementation
) -> Tensor:
    """SiLU of GroupNorm.

    Args:
        images: (B, C, h, w).
        weight: (C,).
        bias: (C,).
        groups: Divides C.
        epsilon: Added to variances, above 0.
        implementation: By what.

    Returns:
        (B, C, h, w); the Triton kernel gives it in channels-last order, whatever that of the input.

    Raises:
        KernelUnavailableError: Triton is asked for and cannot run here.
    """
    if implementation is Implementation.TORCH:
        return reference.group_norm_silu(images, weight, bias, groups, epsilon)
    active: Tensor = group_norm_silu_operator(images, weight, bias, groups, epsilon)
    return active


@torch.library.custom_op("detex::group_norm_silu", mutates_args=())
def group_norm_silu_operator(images: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    """The Triton kernels as an operator of torch."""
    check_available(Operation.GROUP_NORM_SILU, images)
    from detex_generator.ops.triton_kernels import group_norm_silu as kernel

    rows, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    output = torch.empty_like(images, memory_format=torch.channels_last)
    tiles = -(-height * width // kernel.tile_size(channels)[0])
    moments = images.new_empty(rows, tiles, 2, channels, dtype=torch.float32)
    statistics = images.new_empty(rows, groups, 2, dtype=torch.float32)
    for launch in kernel.plan(
        images, weight.contiguous(), bias.contiguous(), moments, statistics, output, groups, epsilon
    ):
        launch.run()
    return output


@group_norm_silu_operator.register_fake
def _(images: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    return torch.empty_like(images, memory_format=torch.channels_last)
