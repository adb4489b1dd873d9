"""The Triton kernel against attention in double precision."""

import pytest
import torch

from detex_generator.ops.references import self_attention as reference
from detex_generator.ops.self_attention import self_attention
from detex_generator.ops.triton_kernels.self_attention import Tiling, plan
from tests.kernels.interpreted.errors import DTYPES, TRITON, assert_as_close, normal


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("positions", "head_dim"), [(70, 40), (33, 80), (128, 40), (7, 40), (1, 80), (16, 64), (19, 160), (16, 8)]
)
def test_parity(positions: int, head_dim: int, dtype: torch.dtype) -> None:
    tensors = [normal(2, positions, 3, head_dim, seed=seed, dtype=dtype) for seed in range(3)]
    wanted = reference.self_attention(*(tensor.double() for tensor in tensors))
    assert_as_close(self_attention(*tensors, TRITON), reference.self_attention(*tensors), wanted)


@pytest.mark.parametrize(
    "tiling",
    [Tiling(64, 32, 4, 2), Tiling(16, 64, 4, 2, ones=True), Tiling(32, 32, 4, 2, padded=True)],
    ids=["parts", "ones", "padded"],
)
def test_tilings_that_the_benchmark_compares_agree(tiling: Tiling) -> None:
    tensors = [normal(1, 70, 2, 40, seed=seed, dtype=torch.float16) for seed in range(3)]
    output = torch.empty_like(tensors[0])
    plan(*tensors, output, tiling).run()
    wanted = reference.self_attention(*(tensor.double() for tensor in tensors))
    assert_as_close(output, reference.self_attention(*tensors), wanted)


def test_large_scores_do_not_overflow() -> None:
    tensors = [30 * normal(1, 40, 1, 40, seed=seed, dtype=torch.float16) for seed in range(3)]
    wanted = reference.self_attention(*(tensor.double() for tensor in tensors))
    assert_as_close(self_attention(*tensors, TRITON), reference.self_attention(*tensors), wanted)


def test_a_column_of_ones_needs_room() -> None:
    tensor = normal(1, 16, 1, 80)
    with pytest.raises(ValueError, match="no filler"):
        plan(tensor, tensor, tensor, tensor, Tiling(16, 16, 4, 2, ones=True))
