"""Self-attention of image positions, for head dims that are no power of two.

Legend: B rows, N image positions, H heads, D head dim.
"""

import torch
from torch import Tensor

from detex_generator.ops.availability import check_available
from detex_generator.ops.operation import Implementation, Operation
from detex_generator.ops.references import self_attention as reference


def self_attention(query: Tensor, key: Tensor, value: Tensor, implementation: Implementation) -> Tensor:
    """What image positions read of each other.

    Args:
        query: (B, N, H, D).
        key: (B, N, H, D).
        value: (B, N, H, D).
        implementation: By what.

    Returns:
        (B, N, H, D).

    Raises:
        KernelUnavailableError: Triton is asked for and cannot run here.
    """
    if implementation is Implementation.TORCH:
        return reference.self_attention(query, key, value)
    attended: Tensor = self_attention_operator(query, key, value)
    return attended


@torch.library.custom_op("detex::self_attention", mutates_args=())
def self_attention_operator(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The Triton kernel as an operator of torch."""
    check_available(Operation.SELF_ATTENTION, query)
    from detex_generator.ops.triton_kernels import self_attention as kernel

    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    kernel.plan(query.contiguous(), key.contiguous(), value.contiguous(), output).run()
    return output


@self_attention_operator.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)
