"""Self-attention by torch's scaled dot-product attention."""

from torch import Tensor
from torch.nn import functional


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Vaswani et al. 2017 (arXiv 1706.03762), equation 1, with no mask; all tensors (B, N, H, D)."""
    heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    return functional.scaled_dot_product_attention(heads_first[0], heads_first[1], heads_first[2]).transpose(1, 2)
