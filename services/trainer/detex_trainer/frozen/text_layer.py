"""Layers of a text encoder that stays as it is: one node of the autograd graph each.

Legend: B prompts, T text positions, E text width, F width of the feed-forward.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import GELUActivation, QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from detex_trainer.frozen.kernels import (
    Layouts,
    attend,
    attend_backward,
    multiply,
    multiply_and_add,
    normalize,
    normalize_backward,
)
from detex_trainer.frozen.layers import is_frozen

# x sigmoid(1.702 x) is silu(1.702 x) / 1.702: the factors go into the weights before and after.
_QUICK = 1.702


class _TextLayer(torch.autograd.Function):
    """From hidden states (B, T, E) to hidden states (B, T, E), each position reading those up to its own."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: "FrozenTextLayer") -> Tensor:
        hidden = hidden.contiguous()
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        first = normalize(hidden, layer.layer_norm1)
        pair = layer.layouts.linear(*(part.weight for part in parts))
        projected = multiply(first.output, pair.forward, torch.cat([part.bias for part in parts]))
        read, sums = attend(projected, attention.num_heads, is_causal=True)
        out = attention.out_proj
        out_pair = out.layouts.linear(out.weight)
        after = multiply_and_add(read, out_pair.forward, out.bias, hidden)
        second = normalize(after, layer.layer_norm2)
        factor = layer.factor
        in_pair = layer.inward.linear(mlp.fc1.weight, scale=factor)
        outward_pair = layer.outward.linear(mlp.fc2.weight, scale=1 / factor)
        wide = multiply(second.output, in_pair.forward, mlp.fc1.bias * factor)  # (B, T, F)
        active = functional.silu(wide) if factor != 1.0 else functional.gelu(wide)
        output = multiply_and_add(active, outward_pair.forward, mlp.fc2.bias, after)
        saved = (hidden, first.mean, first.scale, projected, read, sums, after, second.mean, second.scale, wide)
        ctx.save_for_backward(*saved)
        ctx.layer = layer
        ctx.weights = (pair.backward, out_pair.backward, in_pair.backward, outward_pair.backward)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, mean1, scale1, projected, read, sums, after, mean2, scale2, wide = ctx.saved_tensors
        weight, out_weight, in_weight, outward_weight = ctx.weights
        layer = ctx.layer
        gradient = gradients[0].contiguous()
        inner = multiply(gradient, outward_weight)
        if layer.factor != 1.0:
            inner = torch.ops.aten.silu_backward(inner, wide)
        else:
            inner = torch.ops.aten.gelu_backward(inner, wide)
        inner = normalize_backward(multiply(inner, in_weight), after, mean2, scale2, layer.layer_norm2).add_(gradient)
        of_read = multiply(inner, out_weight)
        heads = layer.self_attn.num_heads
        of_projected = attend_backward(of_read, projected, read, sums, heads, is_causal=True)
        outer = normalize_backward(multiply(of_projected, weight), hidden, mean1, scale1, layer.layer_norm1)
        return outer.add_(inner), None


class FrozenTextLayer(CLIPEncoderLayer):  # type: ignore[misc]
    """A layer of a text encoder that is not trained; made of a `CLIPEncoderLayer` by `freeze_layers`.

    Attributes:
        layouts: Of queries, keys and values together.
        inward: Of the first half of the feed-forward.
        outward: Of its second half.
        factor: By which the first half is multiplied and the second divided.
    """

    layouts: Layouts
    inward: Layouts
    outward: Layouts
    factor: float

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """As `CLIPEncoderLayer`; where a part of it is trained after all, or attention is not causal alone, by that."""
        is_causal = attention_mask is None and kwargs.get("is_causal") is True
        if not is_causal or self.training or not is_frozen(*self._layers()):
            plain: Tensor = super().forward(hidden_states, attention_mask, **kwargs)
            return plain
        output: Tensor = _TextLayer.apply(hidden_states, self)  # type: ignore[no-untyped-call]
        return output

    def _layers(self) -> tuple[nn.Module, ...]:
        one, mlp = self.self_attn, self.mlp
        return (one.q_proj, one.k_proj, one.v_proj, one.out_proj, mlp.fc1, mlp.fc2, self.layer_norm1, self.layer_norm2)


def freeze_text_layer(layer: Any) -> bool:
    """Make a frozen one of a layer of a text encoder of the usual kind; False for others."""
    if type(layer) is not CLIPEncoderLayer:
        return False
    activation = layer.mlp.activation_fn
    if type(activation) is GELUActivation and activation.act is functional.gelu:
        factor = 1.0
    elif type(activation) is QuickGELUActivation:
        factor = _QUICK
    else:
        return False
    layer.__class__ = FrozenTextLayer
    layer.layouts, layer.inward, layer.outward = Layouts(), Layouts(), Layouts()
    layer.factor = factor
    return True
