"""float32 masters of bfloat16 parameters: bfloat16 is too coarse to add small updates to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

_LARGEST_NORM: Final = 1.0


class Masters:
    """AdamW on float32 masters, which are rounded into the parameters that passes are run with.

    Attributes:
        values: The masters.
        averages: Their exponential moving averages.
    """

    def __init__(
        self, groups: Sequence[tuple[Sequence[nn.Parameter], Sequence[Tensor], float]], average: float
    ) -> None:
        """Begin.

        Args:
            groups: Parameters in bfloat16, what their masters begin as, and the highest learning rate.
            average: Decay of the moving average.
        """
        self._rounded: list[Tensor] = [parameter for parameters, _, _ in groups for parameter in parameters]
        self.values = [start.detach().float().clone() for _, starts, _ in groups for start in starts]
        self.averages = [value.clone() for value in self.values]
        self._average, self._updates = average, 0
        options, place = [], 0
        for parameters, _, rate in groups:
            options.append({"params": self.values[place : place + len(parameters)], "lr": rate, "highest": rate})
            place += len(parameters)
        self._optimizer = torch.optim.AdamW(options, betas=(0.9, 0.99), weight_decay=0.01)
        self._round()

    @torch.no_grad()
    def update(self, factor: float) -> None:
        """One step by the gradients of the rounded parameters, at a share of the highest learning rates."""
        for value, parameter in zip(self.values, self._rounded, strict=True):
            value.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        nn.utils.clip_grad_norm_(self.values, _LARGEST_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = group["highest"] * factor
        self._optimizer.step()
        self._round()
        self._updates += 1
        # Early averages would be of little but the start.
        decay = min(self._average, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self.averages, self.values, 1 - decay)

    @torch.no_grad()
    def average_into(self, parameters: Sequence[Tensor]) -> None:
        """Set parameters to the moving averages."""
        torch._foreach_copy_(list(parameters), self.averages)

    @torch.no_grad()
    def _round(self) -> None:
        torch._foreach_copy_(self._rounded, self.values)
