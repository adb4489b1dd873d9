"""What changes from step to step of a training, as tensors and JSON: enough to continue as if nothing had happened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, eq=False)
class PartState:
    """State of one part of a training run.

    Attributes:
        tensors: By name; on the CPU, and nobody else's memory.
        values: JSON by name; floats come back bit for bit.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


RunState = Mapping[str, PartState]
"""By the name of the part."""


@runtime_checkable
class Resumable(Protocol):
    """A part of a training run that changes from step to step."""

    def state(self) -> PartState:
        """Its state now; shares no memory with it."""

    def restore(self, state: PartState) -> None:
        """Go back to a state that it, or one constructed alike, was in."""


def kept(tensor: Tensor) -> Tensor:
    """A copy on the CPU, never the same memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()
