"""A kernel with its grid, arguments and options: planned in one place, run on a GPU or compiled ahead of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Launch:
    """One launch of a kernel.

    Plans may be made of tensors of the `meta` device; then they cannot run, but they can be compiled for a GPU that is
    not there, with exactly the types, alignments and constants of a real launch.

    Attributes:
        kernel: What `triton.jit` made.
        grid: Programs along each axis.
        arguments: By name of the parameter: tensors, numbers, constants of compilation.
        warps: Warps (of 32 threads) of a program.
        stages: How many turns of a loop have loads in flight.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    warps: int
    stages: int

    def run(self) -> None:
        """Enqueue it on the current stream of the device of its tensors."""
        if all(self.grid):
            self.kernel[self.grid](**self.arguments, **self.options)

    @property
    def options(self) -> dict[str, int | bool]:
        """Options of compilation."""
        # Products are fused into sums: said aloud, for Triton's default changes from one version to the next.
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those arguments that are tensors."""
        return {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}
