"""How far a result is from one in double precision, beside how far torch's own is."""

import torch

from detex_generator.ops.operation import Implementation

TRITON = Implementation.TRITON
DTYPES = (torch.float16, torch.float32)  # the interpreter multiplies bfloat16 wrongly without a word


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_as_close(got: torch.Tensor, torch_own: torch.Tensor, wanted: torch.Tensor, factor: float = 1.2) -> None:
    """The kernel is as close to double precision as torch in the same type is, but for `factor` and one rounding.

    The floor is what rounding the exact result to the type may cost, for torch may be lucky.
    """
    assert got.dtype == torch_own.dtype
    assert got.shape == wanted.shape
    assert torch.isfinite(got).all()
    wanted = wanted.double()
    scale = wanted.abs().max().item() or 1.0
    floor = 4 * torch.finfo(got.dtype).eps * scale
    own = (torch_own.double() - wanted).abs().max().item()
    assert (got.double() - wanted).abs().max().item() <= max(factor * own, floor)
