"""Residual blocks of a UNet that stays as it is: one node of the autograd graph each, in place of a dozen.

Legend: B rows, C and O input and output channels, (h, w) size, E width of the time embedding.
"""

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from detex_trainer.frozen.kernels import (
    channels_last,
    convolve,
    multiply,
    normalize_groups,
    normalize_groups_backward,
)
from detex_trainer.frozen.layers import is_frozen


class _Residual(torch.autograd.Function):
    """From pixels (B, C, h, w) and what the denoising step adds to each channel (B, O)."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, added: Tensor, block: "FrozenResidualBlock") -> Tensor:
        pixels = channels_last(pixels)
        first = normalize_groups(pixels, block.norm1)
        conv1, conv2, shape = block.conv1, block.conv2, list(pixels.shape)
        pair1 = conv1.layouts.convolution(conv1.weight, [1, 1], shape)
        hidden = convolve(functional.silu(first.output), pair1.forward, conv1.bias, [1, 1])
        hidden = hidden.add_(added[:, :, None, None])
        second = normalize_groups(hidden, block.norm2)
        pair2 = conv2.layouts.convolution(conv2.weight, [1, 1], list(hidden.shape))
        output = convolve(functional.silu(second.output), pair2.forward, conv2.bias, [1, 1])
        ctx.shortcut = None
        if block.conv_shortcut is None:
            output = output.add_(pixels)
        else:
            shortcut = block.conv_shortcut
            pair = shortcut.layouts.linear(shortcut.weight)
            ctx.shortcut = pair.backward
            output = output.add_(multiply(pixels.permute(0, 2, 3, 1), pair.forward, shortcut.bias).permute(0, 3, 1, 2))
        ctx.save_for_backward(pixels, *first, hidden, *second)
        ctx.norms, ctx.weights = (block.norm1, block.norm2), (pair1.backward, pair2.backward)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pixels, normalized1, mean1, scale1, hidden, normalized2, mean2, scale2 = ctx.saved_tensors
        gradient = channels_last(gradients[0])
        inner = convolve(gradient, ctx.weights[1], None, [1, 1])
        inner = torch.ops.aten.silu_backward(inner, normalized2)
        inner = normalize_groups_backward(inner, hidden, mean2, scale2, ctx.norms[1])
        inner = convolve(inner, ctx.weights[0], None, [1, 1])
        inner = torch.ops.aten.silu_backward(inner, normalized1)
        inner = normalize_groups_backward(inner, pixels, mean1, scale1, ctx.norms[0])
        if ctx.shortcut is None:
            return inner.add_(gradient), None, None
        around = multiply(gradient.permute(0, 2, 3, 1), ctx.shortcut).permute(0, 3, 1, 2)
        return inner.add_(around), None, None


class FrozenResidualBlock(ResnetBlock2D):  # type: ignore[misc]
    """A residual block that is not trained; made of a `ResnetBlock2D` by `freeze_layers`."""

    conv1: Any
    conv2: Any
    conv_shortcut: Any

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        """As `ResnetBlock2D`; where a part of it is trained after all, by that."""
        layers = (self.norm1, self.conv1, self.time_emb_proj, self.norm2, self.conv2, self.conv_shortcut)
        if args or kwargs or temb is None or temb.requires_grad or self.training or not is_frozen(*layers):
            plain: Tensor = super().forward(input_tensor, temb, *args, **kwargs)
            return plain
        pair = self.time_emb_proj.layouts.linear(self.time_emb_proj.weight)
        added = multiply(functional.silu(temb), pair.forward, self.time_emb_proj.bias)
        output: Tensor = _Residual.apply(input_tensor, added, self)  # type: ignore[no-untyped-call]
        return output


def freeze_residual_block(block: Any) -> bool:
    """Make a frozen one of a residual block of the usual kind; False for others."""
    if type(block) is not ResnetBlock2D:
        return False
    if block.up or block.down or block.time_embedding_norm != "default" or block.skip_time_act:
        return False
    shortcut = block.conv_shortcut
    plain = block.output_scale_factor == 1.0 and isinstance(block.nonlinearity, nn.SiLU)
    if not plain or block.time_emb_proj is None or (shortcut is not None and shortcut.kernel_size != (1, 1)):
        return False
    block.__class__ = FrozenResidualBlock
    return True
