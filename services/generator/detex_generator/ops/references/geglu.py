"""A linear layer gated by GELU, in torch."""

from torch import Tensor
from torch.nn import functional


def geglu(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Shazeer 2020 (arXiv 2002.05202), equation 6: values times GELU of gates; (..., K) to (..., F).

    Args:
        hidden: (..., K).
        weight: (2 F, K), values first, then gates.
        bias: (2 F,) or None.
    """
    values, gates = functional.linear(hidden, weight, bias).chunk(2, dim=-1)
    return values * functional.gelu(gates)
