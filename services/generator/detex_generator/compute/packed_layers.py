"""Linear and convolution layers on CPUs with their weights laid out as oneDNN reads them.

Two costs go: the reordering of weights in every call, and, for float32 linear layers, MKL, which makes little of
processors of other makers (measured on an AMD EPYC with AVX-512: 100 against 250 GFLOP/s). Convolutions run in the
channels-last layout, which attention and its projections read without a copy. Sums are taken in another order, so
results agree to rounding.

oneDNN keeps the code of a linear layer for every number of rows that it ever had, whatever the capacity of its cache of
primitives: a quarter of a MiB each, forever. Rows follow from the size of a picture, so linear layers have few numbers
of rows: the first that come, and then multiples of one block, in pieces of eight blocks at most.
"""

import logging
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from detex_diffusion.base_model import BaseModel
from detex_generator.compute.packed_attention import pack_attention

_logger = logging.getLogger(__name__)


MOST_ROW_COUNTS = 64
"""Numbers of rows that linear layers of the process take as they are, beside multiples of a block up to a piece."""
ROW_BLOCK = 64
ROW_PIECE = 8 * ROW_BLOCK


class RowCounts:
    """Numbers of rows that linear layers take as they are; the first ones that come. Safe to use from several threads.

    Args:
        most: How many, beside multiples of `ROW_BLOCK` up to `ROW_PIECE`.
    """

    def __init__(self, most: int = MOST_ROW_COUNTS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: set[int] = set()

    def __len__(self) -> int:
        return len(self._known)

    def admit(self, rows: int) -> bool:
        """Whether so many rows are taken as they are."""
        if rows in self._known or (rows <= ROW_PIECE and rows % ROW_BLOCK == 0):
            return True
        with self._lock:
            if len(self._known) < self._most:
                self._known.add(rows)
            return rows in self._known


ROW_COUNTS = RowCounts()
"""Of this process, as what oneDNN keeps is."""


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
        rows = input.numel() // self.in_features
        if ROW_COUNTS.admit(rows):
            return self._multiplied(input.contiguous(), packed)
        return self._in_pieces(input.reshape(rows, self.in_features), packed).view(*input.shape[:-1], -1)

    def _multiplied(self, input: Tensor, packed: Tensor) -> Tensor:  # noqa: A002
        output: Tensor = torch.ops.mkldnn._linear_pointwise.default(input, packed, self.bias, "none", [], "")
        return output

    def _in_pieces(self, rows: Tensor, packed: Tensor) -> Tensor:
        """The same for (R, in_features), in numbers of rows that are always admitted."""
        output = rows.new_empty(len(rows), self.out_features)
        for given, taken in zip(torch.split(rows, ROW_PIECE), torch.split(output, ROW_PIECE), strict=True):
            filled = functional.pad(given, (0, 0, 0, -len(given) % ROW_BLOCK)).contiguous()
            taken.copy_(self._multiplied(filled, packed)[: len(given)])
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

    The layers stay what they are, with the same parameters: whoever reads or changes a weight continues to do so.
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
