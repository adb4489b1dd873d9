"""A UNet that is trained: whole (DreamBooth, Ruiz et al. 2023), or as low-rank adaptation of its attention.

The adaptation is LoRA (Hu et al. 2022): up @ down is added to the weights of queries, keys, values and outputs.

Legend: O output width of a projection, I input width, r rank.
"""

import copy
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from detex_diffusion.key_value_delta import LowRankDelta
from detex_diffusion.unet_delta import ParameterDelta, materialized
from detex_trainer.frozen import FrozenLinear

_ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")


class _LowRank(nn.Linear):
    """Adds up (down x) to a product with a frozen weight; nothing at the start.

    The sum of both weights is never formed: that and its gradient would take O I numbers in each pass, and each step
    as many products for the weight's gradient as for a weight that is trained whole.
    """

    up: nn.Parameter
    down: nn.Parameter

    def adapt(self, rank: int, generator: torch.Generator) -> None:
        """Begin; the generator is of the CPU and gives `down` its initial normal values."""
        rank = min(rank, *self.weight.shape)
        down = torch.randn(rank, self.in_features, generator=generator) / rank
        self.up = nn.Parameter(torch.zeros(self.out_features, rank, device=self.weight.device))
        self.down = nn.Parameter(down.to(self.weight.device))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., I) to (..., O)."""
        return super().forward(input) + functional.linear(functional.linear(input, self.down), self.up)


class LowRankLinear(_LowRank):
    """A linear layer with an adaptation; made of an `nn.Linear`."""


class LowRankFrozenLinear(_LowRank, FrozenLinear):
    """A frozen layer with an adaptation; made of a `FrozenLinear`."""


class TrainedUNet:
    """A copy of a base model's UNet in float32 of which everything, or its low-rank adaptation, is trained.

    Attributes:
        unet: The copy; the base model's own stays as it is.
    """

    def __init__(self, base: UNet2DConditionModel, rank: int | None, generator: torch.Generator) -> None:
        """Begin at the base model.

        Args:
            base: Its UNet.
            rank: Of the adaptation of the queries, keys, values and outputs of every attention layer; None to train
                every parameter.
            generator: Source of the initial values of an adaptation.
        """
        self._base = base
        self.unet: UNet2DConditionModel = copy.deepcopy(base).float()
        self._adaptations: dict[str, _LowRank] = {}
        if rank is None:
            self.unet.requires_grad_(True)
            return
        self.unet.requires_grad_(False)
        adapted = {
            name: module
            for name, module in self.unet.named_modules()
            if isinstance(module, nn.Linear) and any(name.endswith(f".{last}") for last in _ADAPTED) and ".attn" in name
        }
        for name, module in adapted.items():
            module.__class__ = LowRankFrozenLinear if isinstance(module, FrozenLinear) else LowRankLinear
            adaptation = cast("_LowRank", module)
            adaptation.adapt(rank, generator)
            self._adaptations[f"{name}.weight"] = adaptation

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [parameter for parameter in self.unet.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def delta(self) -> dict[str, ParameterDelta]:
        """What was added to the base, by parameter, in float32; what has not moved is left out."""
        if self._adaptations:
            return {
                name: LowRankDelta(adaptation.up.detach().clone(), adaptation.down.detach().clone())
                for name, adaptation in self._adaptations.items()
                if bool(adaptation.up.any())
            }
        base = dict(self._base.named_parameters())
        delta: dict[str, ParameterDelta] = {}
        for name, parameter in self.unet.named_parameters():
            moved = parameter.detach() - base[name].float()
            if bool(moved.any()):
                delta[name] = moved
        return delta

    def delta_share(self) -> float:
        """Size of the delta as a share of the parameters that it moves: |dW| / |W|, Frobenius norms."""
        delta, base = self.delta(), dict(self._base.named_parameters())
        moved = sum(float(materialized(each).square().sum()) for each in delta.values())
        there = sum(float(base[name].float().square().sum()) for name in delta)
        return float((moved / max(there, 1e-12)) ** 0.5)
