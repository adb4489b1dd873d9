"""What a concept adds to the key and value projections of cross-attention, full or as two thin matrices.

Legend: O output width of a projection (heads times head dim), E text width, r rank.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PROJECTIONS = ("to_k", "to_v")
"""Names of the two projections that a delta may belong to."""


@dataclass(frozen=True, eq=False)
class FullDelta:
    """dW itself; may be a parameter in training.

    Attributes:
        weight: (O, E).
    """

    weight: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(O, E)."""
        return int(self.weight.shape[0]), int(self.weight.shape[1])

    def apply(self, hidden: Tensor) -> Tensor:
        """The product dW h for hidden states (..., E): (..., O)."""
        return functional.linear(hidden, self.weight)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "FullDelta":
        """The same on another device or of another type."""
        return FullDelta(self.weight.to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        """By the suffix of their names in a concept file."""
        return {"": self.weight}

    def materialized(self) -> Tensor:
        """The matrix (O, E)."""
        return self.weight


@dataclass(frozen=True, eq=False)
class LowRankDelta:
    """dW = up @ down, never multiplied out.

    Attributes:
        up: (O, r).
        down: (r, E).
    """

    up: Tensor
    down: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(O, E)."""
        return int(self.up.shape[0]), int(self.down.shape[1])

    @property
    def rank(self) -> int:
        """The rank r."""
        return int(self.down.shape[0])

    def apply(self, hidden: Tensor) -> Tensor:
        """The product up down h for hidden states (..., E): (..., O)."""
        return functional.linear(functional.linear(hidden, self.down), self.up)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "LowRankDelta":
        """The same on another device or of another type."""
        return LowRankDelta(self.up.to(device=device, dtype=dtype), self.down.to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        """By the suffix of their names in a concept file."""
        return {".up": self.up, ".down": self.down}

    def materialized(self) -> Tensor:
        """The matrix (O, E), for tests and compression."""
        return self.up @ self.down


ProjectionDelta = FullDelta | LowRankDelta


@dataclass(frozen=True, eq=False)
class LayerDelta:
    """What a concept adds to one cross-attention layer.

    Attributes:
        to_k: Delta of the key projection, or None.
        to_v: Delta of the value projection, or None.
    """

    to_k: ProjectionDelta | None = None
    to_v: ProjectionDelta | None = None

    def projections(self) -> Iterator[tuple[str, ProjectionDelta]]:
        """Those that there are, by name."""
        for name, delta in zip(PROJECTIONS, (self.to_k, self.to_v), strict=True):
            if delta is not None:
                yield name, delta

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "LayerDelta":
        """The same on another device or of another type."""
        return LayerDelta(**{name: delta.to(device, dtype) for name, delta in self.projections()})


KeyValueDeltas = Mapping[str, LayerDelta]
"""By the name of the cross-attention module in the UNet."""


def low_rank_delta(
    delta: ProjectionDelta, energy: float, largest_rank: int | None = None
) -> tuple[LowRankDelta, float]:
    """The thinnest factors of dW that keep a share of its energy, by singular value decomposition in float64.

    Args:
        delta: Of any form.
        energy: Share of the squared Frobenius norm to keep, greater than 0, at most 1.
        largest_rank: Limit of the rank, which goes before `energy`; None for none.

    Returns:
        Factors of the type and device of the given delta, each carrying half of the singular values, and the squared
        Frobenius norm that they keep (absolute, in float64).
    """
    matrix = delta.materialized().detach()
    left, singular, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    energies = singular.square()
    kept = energies.cumsum(0)
    # A last bit of rounding must not ask for a rank more than there is.
    rank = int((kept < energy * kept[-1] * (1 - 1e-12)).sum().item()) + 1
    rank = max(1, min(rank, largest_rank or rank, len(singular)))
    root = singular[:rank].sqrt()
    up = (left[:, :rank] * root).to(matrix.dtype).contiguous()
    down = (root[:, None] * right[:rank]).to(matrix.dtype).contiguous()
    return LowRankDelta(up, down), float(kept[rank - 1].item())
