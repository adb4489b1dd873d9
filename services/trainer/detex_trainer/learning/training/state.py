"""The state of a training run: its weights, its chance, and all of it as safetensors and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from detex_core.errors import DataLossError
from detex_trainer.learning.methods.learner import ParameterGroup
from detex_trainer.learning.resumable import PartState, RunState, kept


class Weights:
    """The trained parameters as a `Resumable`."""

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        self._parameters = {
            f"{group.name}.{index}": parameter for group in groups for index, parameter in enumerate(group.parameters)
        }

    def state(self) -> PartState:
        """See `Resumable`."""
        return PartState({name: kept(parameter) for name, parameter in self._parameters.items()})

    @torch.no_grad()
    def restore(self, state: PartState) -> None:
        """See `Resumable`."""
        for name, parameter in self._parameters.items():
            parameter.copy_(state.tensors[name])

    def are_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self._parameters.values())


class Chance:
    """A CPU generator as a `Resumable`."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state(self) -> PartState:
        """See `Resumable`."""
        return PartState({"generator": self._generator.get_state()})

    def restore(self, state: PartState) -> None:
        """See `Resumable`."""
        self._generator.set_state(state.tensors["generator"])


def write_tensors(state: RunState) -> bytes:
    """All tensors in the format of safetensors."""
    named = {f"{part}/{name}": tensor for part, each in state.items() for name, tensor in each.tensors.items()}
    return safetensors.torch.save(named)


def read_state(tensors: bytes, values: Mapping[str, Mapping[str, Any]]) -> dict[str, PartState]:
    """The state whose tensors and values were written apart.

    Raises:
        DataLossError: The tensors cannot be read.
    """
    try:
        named = safetensors.torch.load(tensors)
    except (safetensors.SafetensorError, ValueError) as error:
        raise DataLossError(f"The tensors of a checkpoint cannot be read: {error}") from error
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in values}
    for name, tensor in named.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    return {part: PartState(each, values.get(part, {})) for part, each in parts.items()}
