"""The optimiser: AdamW over the groups of a learner, with warm-up and cosine decay."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detex_trainer.learning.methods.learner import ParameterGroup
from detex_trainer.learning.resumable import PartState, kept

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
    """Updates the parameters of a learner; nothing decays, so what gets no gradient stays bit for bit as it is.

    Attributes:
        rate_scale: Factor of all learning rates, at most 1; below 1 after a divergence.
        gradient_norms: Norm of the gradients of each group before they were clipped, of the last update.
    """

    def __init__(self, groups: Sequence[ParameterGroup], total_steps: int, *, scales_losses: bool = False) -> None:
        """Before the first step.

        Args:
            groups: What is trained; float32.
            total_steps: Steps of the course of the learning rates.
            scales_losses: Whether gradients come through float16, where small ones vanish and large ones overflow: a
                loss is then multiplied by a factor that grows while all goes well, and the update of a step whose
                gradients overflowed is left out.
        """
        self._groups = tuple(groups)
        device = next((p.device.type for group in groups for p in group.parameters), "cpu")
        self._scaler = torch.amp.GradScaler(device, enabled=scales_losses)
        self._total_steps = total_steps
        self._step = 0
        self.rate_scale = 1.0
        self.gradient_norms: tuple[Tensor, ...] = ()
        self._optimizer = torch.optim.AdamW(
            [{"params": list(group.parameters), "lr": group.learning_rate} for group in groups],
            betas=(0.9, 0.99),
            weight_decay=0.0,
            fused=True,
        )

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        self._optimizer.zero_grad(set_to_none=True)

    def scaled(self, loss: Tensor) -> Tensor:
        """What `backward` is to be called on for a loss."""
        return self._scaler.scale(loss)

    def update(self) -> None:
        """Update by the gradients that there are; they are clipped per group, whose scales differ widely."""
        has_gradients = any(p.grad is not None for group in self._groups for p in group.parameters)
        if has_gradients:
            self._scaler.unscale_(self._optimizer)
        share = self.rate_scale * learning_rate_share(self._step, self._total_steps)
        norms = []
        for group, options in zip(self._groups, self._optimizer.param_groups, strict=True):
            norms.append(nn.utils.clip_grad_norm_(group.parameters, LARGEST_GRADIENT_NORM))
            options["lr"] = group.learning_rate * share
        self.gradient_norms = tuple(norms)
        if has_gradients:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self._step += 1

    def state(self) -> PartState:
        """See `Resumable`; moments are there for the parameters that have had a gradient."""
        tensors = {
            f"{name}.{key}": kept(tensor)
            for name, parameter in self._named()
            for key, tensor in self._optimizer.state.get(parameter, {}).items()
        }
        values = {"step": self._step, "rate_scale": self.rate_scale, "loss_scale": self._scaler.state_dict()}
        return PartState(tensors, values)

    def restore(self, state: PartState) -> None:
        """See `Resumable`."""
        self._step, self.rate_scale = int(state.values["step"]), float(state.values["rate_scale"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(dict(state.values["loss_scale"]))
        self._optimizer.state.clear()
        for name, parameter in self._named():
            found: dict[str, Tensor] = {
                key.removeprefix(f"{name}."): tensor
                for key, tensor in state.tensors.items()
                if key.startswith(f"{name}.")
            }
            if found:
                # The count of steps lies where the optimiser wants it for the fused update.
                self._optimizer.state[parameter] = {key: kept(t).to(parameter.device) for key, t in found.items()}

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{group.name}.{index}", parameter)
            for group in self._groups
            for index, parameter in enumerate(group.parameters)
        ]
