"""Linear and convolution layers of a base model that stays as it is, on CPUs: gradients for their inputs alone.

Weights lie in the layout that oneDNN reads, once for the forward half of a pass and once, transposed, for the backward
half: no call reorders them, and linear layers in float32 do not go through MKL, which makes little of processors of
other makers (measured on an AMD EPYC with AVX-512: 2.2 times the time). Results agree with torch's own to rounding.

Legend: I and O input and output width or channels.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from detex_diffusion.base_model import BaseModel

_LARGEST_SHARE = 0.25  # of free memory, for weights in two more layouts

_log = logging.getLogger(__name__)


class _Layouts:
    """A weight in the two layouts, made when it is first needed and whenever it has changed."""

    def __init__(self) -> None:
        self._of: tuple[Tensor, int] | None = None
        self._pair: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Layouts":
        return _Layouts()

    def find(self, weight: Tensor) -> tuple[Tensor, Tensor] | None:
        """Those of a weight as it is now; None where they have yet to be made."""
        of = self._of
        return self._pair if of is not None and of[0] is weight and of[1] == weight._version else None

    def keep(self, weight: Tensor, forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
        """Remember them."""
        self._of, self._pair = (weight, weight._version), (forward, backward)
        return self._pair


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, forward: Tensor, backward: Tensor, bias: Tensor | None) -> Tensor:
        ctx.backward_weight = backward
        output: Tensor = torch.ops.mkldnn._linear_pointwise(hidden.contiguous(), forward, bias, "none", [], "")
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        return torch.ops.mkldnn._linear_pointwise(gradient, ctx.backward_weight, None, "none", [], ""), None, None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, forward: Tensor, backward: Tensor, bias: Tensor | None, padding: list[int], size: int
    ) -> Tensor:
        ctx.backward_weight, ctx.padding = backward, [size - 1 - each for each in padding]
        return _convolve(pixels, forward, bias, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _convolve(gradients[0], ctx.backward_weight, None, ctx.padding), None, None, None, None, None


class FrozenLinear(nn.Linear):
    """A linear layer whose weight is not trained; made of an `nn.Linear` by `freeze_layers`."""

    layouts: _Layouts

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As `nn.Linear`; where the weight is trained after all, by `nn.Linear`."""
        if self.weight.requires_grad:
            return super().forward(input)
        pair = self.layouts.find(self.weight)
        if pair is None:
            weight = self.weight.detach()
            reorder = torch.ops.mkldnn._reorder_linear_weight
            pair = self.layouts.keep(self.weight, reorder(weight, None), reorder(weight.t().contiguous(), None))
        output: Tensor = _Linear.apply(input, *pair, self.bias)  # type: ignore[no-untyped-call]
        return output


class FrozenConvolution(nn.Conv2d):
    """A convolution of stride 1 whose weight is not trained, channels last; made of an `nn.Conv2d`."""

    layouts: _Layouts

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As `nn.Conv2d`; where the weight is trained after all, by `nn.Conv2d`."""
        if self.weight.requires_grad:
            return super().forward(input)
        padding, size = [int(each) for each in self.padding], int(self.weight.shape[-1])
        pair = self.layouts.find(self.weight)
        if pair is None:
            weight = self.weight.detach()  # (O, I, k, k)
            turned = weight.flip(2, 3).transpose(0, 1).contiguous()
            shape, full = list(input.shape), [size - 1 - each for each in padding]
            # The layout follows from the size of the input; that of the first serves the others.
            pair = self.layouts.keep(
                self.weight,
                _reordered(weight, padding, shape),
                _reordered(turned, full, [shape[0], self.out_channels, *shape[2:]]),
            )
        output: Tensor = _Convolution.apply(input, *pair, self.bias, padding, size)  # type: ignore[no-untyped-call]
        return output


def freeze_layers(module: nn.Module) -> int:
    """Let the layers of a module use the two layouts; returns how many do so now.

    The layers stay what they are, with the same parameters: whoever reads, copies or trains a weight goes on doing so.
    """
    frozen = 0
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = FrozenLinear
        elif type(layer) is nn.Conv2d and _is_plain(layer):
            layer.__class__ = FrozenConvolution
        else:
            continue
        layer.layouts = _Layouts()  # type: ignore[assignment]
        frozen += 1
    return frozen


def freeze_base_model(base_model: BaseModel, free_bytes: int) -> None:
    """Let what takes part in each step of a training use the two layouts, on a CPU where oneDNN and memory allow it."""
    parts = (base_model.text_encoder, base_model.unet)
    needed = 2 * sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    if base_model.device.type != "cpu" or base_model.dtype not in (torch.float32, torch.bfloat16):
        return
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        _log.info("oneDNN is not at hand; the layers of base model %s stay as they are", base_model.name)
        return
    if needed > _LARGEST_SHARE * free_bytes:
        _log.info("memory is too scarce to keep the weights of base model %s in two more layouts", base_model.name)
        return
    layers = sum(freeze_layers(part) for part in parts)
    _log.info("%d layers of base model %s compute gradients for their inputs alone", layers, base_model.name)


def _is_plain(layer: nn.Conv2d) -> bool:
    square = layer.kernel_size[0] == layer.kernel_size[1] and not isinstance(layer.padding, str)
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1
    return square and plain and layer.padding_mode == "zeros"


def _reordered(weight: Tensor, padding: list[int], shape: list[int]) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, [1, 1], [1, 1], 1, shape)
    return packed


def _convolve(pixels: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        pixels, weight, bias, padding, [1, 1], [1, 1], 1, "none", [], ""
    )
    return output
