"""What computes each operation: decided once from settings, device and type, said in the log, counted when taken.

Nothing falls back in silence. `auto` takes the kernel where the table below says so and the device can run it; an
implementation that is asked for by name and cannot run is an error when the process starts.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch

from detex_generator.ops.availability import why_unavailable
from detex_generator.ops.kernel_setting import parse_kernels
from detex_generator.ops.operation import Implementation, KernelUnavailableError, Operation

LARGEST_HEAD_DIM = 256

_ATTENTION = (Operation.SEGMENTED_ATTENTION, Operation.SELF_ATTENTION)

PREFERENCES: Mapping[Operation, tuple[Implementation, str]] = MappingProxyType(
    {
        Operation.SEGMENTED_ATTENTION: (Implementation.TRITON, "2.7 times as fast on ragged texts, 1.7 on regions"),
        Operation.GUIDED_SOLVER_STEP: (Implementation.TRITON, "12 to 18 times as fast as its dozen launches"),
        Operation.SELF_ATTENTION: (Implementation.TORCH, "cuDNN is 1.3 times as fast"),
        Operation.GEGLU: (Implementation.TRITON, "1.1 to 1.6 times as fast"),
        Operation.GROUP_NORM_SILU: (Implementation.TRITON, "3.5 to 4.8 times as fast"),
    }
)
"""What `auto` takes on a GPU, and why: what was measured to be faster than the best of torch where steps are not
compiled (`docs/kernels.md`). Compiled steps take segmented attention alone; inductor makes the rest."""


@dataclass(frozen=True)
class Decision:
    """What computes an operation, and why.

    Attributes:
        implementation: By what.
        reason: Why.
        asked: Whether it was asked for by name: then nothing is taken in its place.
    """

    implementation: Implementation
    reason: str
    asked: bool = False


class KernelChoice:
    """What computes each operation on one device with tensors of one type; safe to use from several threads.

    Attributes:
        decisions: By operation.
    """

    def __init__(self, text: str, device: torch.device, dtype: torch.dtype) -> None:
        """Decide.

        Args:
            text: As `parse_kernels` takes it.
            device: Where tensors are.
            dtype: Of the UNet.

        Raises:
            InvalidInputError: The text is not accepted.
            KernelUnavailableError: A kernel is asked for by name that cannot run here.
        """
        asked = parse_kernels(text)
        obstacle = why_unavailable(device, dtype)
        self.decisions: Mapping[Operation, Decision] = MappingProxyType(
            {operation: _decision(operation, asked.get(operation), device, obstacle) for operation in Operation}
        )
        self._lock = threading.Lock()
        self._taken: Counter[tuple[Operation, Implementation]] = Counter()

    def take(self, operation: Operation, *, head_dim: int | None = None) -> Implementation:
        """What is to compute an operation now; counts it.

        Args:
            operation: Which.
            head_dim: Of an attention.

        Raises:
            KernelUnavailableError: The kernel was asked for and does not compute this head dim.
        """
        implementation = self.decisions[operation].implementation
        fits = operation not in _ATTENTION or (head_dim is not None and 1 <= head_dim <= LARGEST_HEAD_DIM)
        if implementation is Implementation.TRITON and not fits:
            raise KernelUnavailableError(
                f"The Triton kernel of {operation.value} takes head dims 1 to {LARGEST_HEAD_DIM}; given is {head_dim}."
            )
        with self._lock:
            self._taken[operation, implementation] += 1
        return implementation

    def taken(self) -> dict[tuple[Operation, Implementation], int]:
        """How often each implementation was taken. A CUDA graph takes when it is captured, not when it is replayed."""
        with self._lock:
            return dict(self._taken)

    def uses(self, operation: Operation) -> bool:
        """Whether the Triton kernel computes an operation."""
        return self.decisions[operation].implementation is Implementation.TRITON

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """The same one: a copy of a UNet goes by the choice, and is counted with, the UNet it was copied from."""
        return self

    def describe(self) -> str:
        """One line for the log."""
        return "; ".join(
            f"{operation.value} by {decision.implementation.value} ({decision.reason})"
            for operation, decision in self.decisions.items()
        )


def _decision(
    operation: Operation, asked: Implementation | None, device: torch.device, obstacle: str | None
) -> Decision:
    if asked is Implementation.TRITON and obstacle is not None:
        raise KernelUnavailableError(f"kernels: {operation.value} cannot use triton: {obstacle}.")
    if asked is not None:
        return Decision(asked, "as asked for", asked=True)
    implementation, reason = PREFERENCES[operation]
    if implementation is Implementation.TRITON and device.type != "cuda":
        # Also where kernels are interpreted: nobody wants that without asking for it.
        return Decision(Implementation.TORCH, f"kernels run on NVIDIA GPUs, and the device is {device.type}")
    if implementation is Implementation.TRITON and obstacle is not None:
        return Decision(Implementation.TORCH, obstacle)
    return Decision(implementation, reason)
