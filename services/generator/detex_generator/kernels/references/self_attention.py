"""Self-attention by torch's scaled dot-product attention."""

from torch import Tensor
from torch.nn import functional


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Vaswani et al. 2017 (arXiv 1706.03762), equation 1, with no mask; all tensors (B, N, H, D)."""
    attended = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    return attended.transpose(1, 2)
