"""Linear and convolution layers on CPUs with their weights laid out as oneDNN reads them.

Two costs go: the reordering of weights in every call, and, for float32 linear layers, MKL, which makes little of
processors of other makers (measured on an AMD EPYC with AVX-512: 100 against 250 GFLOP/s). Convolutions run in the
channels-last layout, which attention and its projections read without a copy. Sums are taken in another order, so
results agree to rounding.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from detex_diffusion.base_model import BaseModel
from detex_generator.packed_attention import pack_attention

_logger = logging.getLogger(__name__)


class _PackedWeight:
    """A weight as oneDNN reads it, made from a parameter when it is first needed and whenever that has changed."""

    def __init__(self) -> None:
        self._packed: tuple[Tensor, int, Tensor] | None = None  # of which parameter, in which version, packed

    def __deepcopy__(self, memo: dict[int, Any]) -> "_PackedWeight":
        return _PackedWeight()

    def find(self, weight: Tensor) -> Tensor | None:
        """The packed form of a parameter as it is now; None where it has yet to be made."""
        packed = self._packed
        if packed is not None and packed[0] is weight and packed[1] == weight._version:
            return packed[2]
        return None

    def keep(self, weight: Tensor, packed: Tensor) -> Tensor:
        """Remember the packed form of a parameter."""
        self._packed = (weight, weight._version, packed)
        return packed


class PackedLinear(nn.Linear):
    """A linear layer for inference; made of an `nn.Linear` by `pack`."""

    packed_weight: _PackedWeight

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As `nn.Linear`, without gradients."""
        if torch.is_grad_enabled():
            return super().forward(input)
        packed = self.packed_weight.find(self.weight)
        if packed is None:
            packed = self.packed_weight.keep(
                self.weight, torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)
            )
        output: Tensor = torch.ops.mkldnn._linear_pointwise.default(
            input.contiguous(), packed, self.bias, "none", [], ""
        )
        return output


class PackedConvolution(nn.Conv2d):
    """A convolution for inference, channels last; made of an `nn.Conv2d` by `pack`."""

    packed_weight: _PackedWeight

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As `nn.Conv2d`, without gradients."""
        if torch.is_grad_enabled():
            return super().forward(input)
        geometry = [list(self.padding), list(self.stride), list(self.dilation), self.groups]
        packed = self.packed_weight.find(self.weight)
        if packed is None:
            packed = self.packed_weight.keep(
                self.weight,
                # The layout follows from the size of the input; that of the first serves the others.
                torch.ops.mkldnn._reorder_convolution_weight(self.weight.detach(), *geometry, list(input.shape)),
            )
        channels_last = input.contiguous(memory_format=torch.channels_last)
        output: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
            channels_last, packed, self.bias, *geometry, "none", [], ""
        )
        return output


class WideGroupNorm(nn.GroupNorm):
    """A GroupNorm of bfloat16 that computes in float32, in which torch is several times faster on CPUs."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As `nn.GroupNorm`, rounded once in the end."""
        weight, bias = (None if each is None else each.float() for each in (self.weight, self.bias))
        return functional.group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input.dtype)


def pack(module: nn.Module) -> int:
    """Let the linear and convolution layers of a module on a CPU use packed weights; returns how many do so now.

    GroupNorms of bfloat16 compute in float32.

    The layers stay what they are, with the same parameters: whoever reads or changes a weight goes on doing so.
    """
    packed = 0
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = PackedLinear
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            layer.__class__ = PackedConvolution
        elif type(layer) is nn.GroupNorm and layer.affine and layer.weight.dtype == torch.bfloat16:
            layer.__class__ = WideGroupNorm
            continue
        else:
            continue
        layer.packed_weight = _PackedWeight()  # type: ignore[assignment]
        packed += 1
    return packed


def pack_base_model(base_model: BaseModel) -> None:
    """Pack all that draws pictures with a base model, where it is on a CPU that oneDNN computes on."""
    if base_model.device.type != "cpu" or base_model.dtype not in (torch.float32, torch.bfloat16):
        return
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        _logger.info("oneDNN is not at hand; weights of base model %s stay as they are", base_model.name)
        return
    pack_attention(base_model.unet)
    layers = sum(pack(module) for module in (*base_model.text.modules(), base_model.unet, base_model.vae))
    _logger.info("%d layers of base model %s use packed weights", layers, base_model.name)
