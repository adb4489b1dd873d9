"""Linear and convolution layers of a base model that stays as it is, on CPUs: gradients for their inputs alone."""

from typing import Any

import torch
from torch import Tensor, nn

from detex_trainer.frozen.kernels import Layouts, Pair, convolve, multiply


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, forward: Tensor, backward: Tensor, bias: Tensor | None) -> Tensor:
        ctx.backward_weight = backward
        return multiply(hidden, forward, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return multiply(gradients[0], ctx.backward_weight), None, None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, forward: Tensor, backward: Tensor, bias: Tensor | None, padding: list[int], size: int
    ) -> Tensor:
        ctx.backward_weight, ctx.padding = backward, [size - 1 - each for each in padding]
        return convolve(pixels, forward, bias, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return convolve(gradients[0], ctx.backward_weight, None, ctx.padding), None, None, None, None, None


class FrozenLinear(nn.Linear):
    """A linear layer whose weight is not trained; made of an `nn.Linear` by `freeze_layers`."""

    layouts: Layouts

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As `nn.Linear`; where the weight is trained after all, by `nn.Linear`."""
        if self.weight.requires_grad:
            return super().forward(input)
        return frozen_product(input, self.layouts.linear(self.weight), self.bias)


class FrozenConvolution(nn.Conv2d):
    """A convolution of stride 1 whose weight is not trained, channels last; made of an `nn.Conv2d`."""

    layouts: Layouts

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As `nn.Conv2d`; where the weight is trained after all, by `nn.Conv2d`."""
        if self.weight.requires_grad:
            return super().forward(input)
        padding, size = [int(each) for each in self.padding], int(self.weight.shape[-1])
        if size == 1 and not any(padding):
            # A product per pixel, which oneDNN does faster as such.
            pair = self.layouts.linear(self.weight)
            return frozen_product(input.permute(0, 2, 3, 1), pair, self.bias).permute(0, 3, 1, 2)
        pair = self.layouts.convolution(self.weight, padding, list(input.shape))
        output: Tensor = _Convolution.apply(input, *pair, self.bias, padding, size)  # type: ignore[no-untyped-call]
        return output


def frozen_product(hidden: Tensor, pair: Pair, bias: Tensor | None = None) -> Tensor:
    """Hidden states (..., I) times a frozen weight (O, I): (..., O); differentiable in the hidden states."""
    output: Tensor = _Linear.apply(hidden, *pair, bias)  # type: ignore[no-untyped-call]
    return output


def is_plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one that `FrozenConvolution` does."""
    square = layer.kernel_size[0] == layer.kernel_size[1] and not isinstance(layer.padding, str)
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1
    return square and plain and layer.padding_mode == "zeros"


def is_frozen(*layers: nn.Module | None) -> bool:
    """Whether layers are frozen ones or normalisations whose weights are not trained; those that are None count not."""
    for layer in layers:
        if layer is None:
            continue
        # Looked up where it lies: this is asked of every block in every pass.
        weight = layer._parameters.get("weight") if type(layer) in _FROZEN else None
        if weight is None or weight.requires_grad:
            return False
    return True


_FROZEN = (FrozenLinear, FrozenConvolution, nn.LayerNorm, nn.GroupNorm)
