"""GroupNorm followed by SiLU, in torch."""

from torch import Tensor
from torch.nn import functional


def group_norm_silu(images: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    """Wu and He 2018 (arXiv 1803.08494) with SiLU (x times sigmoid of x); (B, C, h, w) to the same."""
    return functional.silu(functional.group_norm(images, groups, weight, bias, epsilon))
