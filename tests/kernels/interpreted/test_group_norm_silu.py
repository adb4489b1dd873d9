"""The Triton kernels against GroupNorm and SiLU in double precision."""

import pytest
import torch

from detex_generator.ops.group_norm_silu import group_norm_silu
from detex_generator.ops.references import group_norm_silu as reference
from tests.kernels.interpreted.errors import DTYPES, TRITON, assert_as_close, normal


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "groups", "mean"),
    [((2, 80, 9, 7), 8, 0.0), ((1, 24, 13, 11), 4, 3.0), ((3, 16, 1, 2), 16, 0.0), ((1, 32, 33, 34), 8, 100.0)],
)
def test_parity(shape: tuple[int, ...], groups: int, mean: float, dtype: torch.dtype) -> None:
    """Also where the mean is far larger than the deviation, and beyond 16 tiles of 64 positions."""
    images = normal(*shape, dtype=dtype) + mean
    weight, bias = normal(shape[1], seed=1, dtype=dtype), normal(shape[1], seed=2, dtype=dtype)
    wanted = reference.group_norm_silu(images.double(), weight.double(), bias.double(), groups, 1e-5)
    got = group_norm_silu(images, weight, bias, groups, 1e-5, TRITON)
    assert got.is_contiguous(memory_format=torch.channels_last)
    # Moments of float32 pictures with a large mean are as good as float32 is; torch's own differ in the same digits.
    assert_as_close(got, reference.group_norm_silu(images, weight, bias, groups, 1e-5), wanted, factor=4.0)


def test_memory_order_does_not_matter() -> None:
    images, weight, bias = normal(2, 32, 6, 5), normal(32, seed=1), normal(32, seed=2)
    one = group_norm_silu(images, weight, bias, 8, 1e-5, TRITON)
    other = group_norm_silu(images.contiguous(memory_format=torch.channels_last), weight, bias, 8, 1e-5, TRITON)
    assert torch.equal(one, other)
