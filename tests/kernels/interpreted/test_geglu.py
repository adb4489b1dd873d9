"""The Triton kernel against the gated layer in double precision."""

import pytest
import torch

from detex_generator.ops.geglu import geglu
from detex_generator.ops.references import geglu as reference
from tests.kernels.interpreted.errors import DTYPES, TRITON, assert_as_close, normal


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biased", [True, False], ids=["biased", "plain"])
@pytest.mark.parametrize(("shape", "gated"), [((3, 47, 72), 88), ((130, 64), 64), ((1, 8), 16), ((2, 5, 40), 200)])
def test_parity(shape: tuple[int, ...], gated: int, biased: bool, dtype: torch.dtype) -> None:
    hidden = normal(*shape, dtype=dtype)
    weight = normal(2 * gated, shape[-1], seed=1, dtype=dtype) / 4
    bias = normal(2 * gated, seed=2, dtype=dtype) if biased else None
    wanted = reference.geglu(hidden.double(), weight.double(), None if bias is None else bias.double())
    assert_as_close(geglu(hidden, weight, bias, TRITON), reference.geglu(hidden, weight, bias), wanted)
