"""The optimiser: AdamW over the groups of a learner, with warm-up and cosine decay."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from detex_trainer.methods.learner import ParameterGroup

WARM_UP_SHARE = 0.05
FINAL_SHARE = 0.1
LARGEST_GRADIENT_NORM = 1.0


def learning_rate_share(step: int, total_steps: int) -> float:
    """Share of the highest learning rate at a step (0 to total_steps - 1): linear warm-up, then cosine decay to 0.1."""
    warm_up = max(1, round(total_steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total_steps - warm_up)
    return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))


class ConceptOptimizer:
    """Updates the parameters of a learner; nothing decays, so what gets no gradient stays bit for bit as it is."""

    def __init__(self, groups: Sequence[ParameterGroup], total_steps: int) -> None:
        self._groups = tuple(groups)
        self._total_steps = total_steps
        self._step = 0
        self._optimizer = torch.optim.AdamW(
            [{"params": list(group.parameters), "lr": group.learning_rate} for group in groups],
            betas=(0.9, 0.99),
            weight_decay=0.0,
        )

    def step(self, loss: torch.Tensor) -> None:
        """Backpropagate a scalar loss and update; gradients are clipped per group, whose scales differ widely."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        share = learning_rate_share(self._step, self._total_steps)
        for group, options in zip(self._groups, self._optimizer.param_groups, strict=True):
            nn.utils.clip_grad_norm_(group.parameters, LARGEST_GRADIENT_NORM)
            options["lr"] = group.learning_rate * share
        self._optimizer.step()
        self._step += 1
