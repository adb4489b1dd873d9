"""The feed-forward's first layer with its gate.

Legend: M rows, K width of the input, F width of the output.
"""

import torch
from torch import Tensor

from detex_generator.ops.availability import check_available
from detex_generator.ops.operation import Implementation, Operation
from detex_generator.ops.references import geglu as reference


def geglu(hidden: Tensor, weight: Tensor, bias: Tensor | None, implementation: Implementation) -> Tensor:
    """A linear layer whose first half of outputs is gated by GELU (exact, by the error function) of the second.

    Args:
        hidden: (..., K).
        weight: (2 F, K).
        bias: (2 F,) or None.
        implementation: By what.

    Returns:
        (..., F).

    Raises:
        KernelUnavailableError: Triton is asked for and cannot run here.
    """
    if implementation is Implementation.TORCH:
        return reference.geglu(hidden, weight, bias)
    gated: Tensor = geglu_operator(hidden, weight, bias)
    return gated


@torch.library.custom_op("detex::geglu", mutates_args=())
def geglu_operator(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The Triton kernel as an operator of torch."""
    check_available(Operation.GEGLU, hidden)
    from detex_generator.ops.triton_kernels import geglu as kernel

    flat = hidden.reshape(-1, hidden.shape[-1]).contiguous()
    output = flat.new_empty(flat.shape[0], weight.shape[0] // 2)
    kernel.plan(flat, weight.contiguous(), None if bias is None else bias.contiguous(), output).run()
    return output.view(*hidden.shape[:-1], -1)


@geglu_operator.register_fake
def _(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return hidden.new_empty(*hidden.shape[:-1], weight.shape[0] // 2)
