"""Transformer blocks of a UNet that stays as it is: self-attention and feed-forward are one node of the graph each.

Between the two lies cross-attention, the one place where a concept touches the UNet, which autograd sees as it is.

Legend: B rows, N image positions, C channels, H heads, D head dim, F width of the feed-forward.
"""

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.nn import functional

from detex_diffusion.cross_attention import KEY_VALUES, RECORDER, KeyValueProcessor, SelfAttentionProcessor
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


class _SelfAttention(torch.autograd.Function):
    """From hidden states (B, N, C) to those after self-attention, and to queries (B, N, C) of cross-attention."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, block: "FrozenTransformerBlock") -> tuple[Tensor, Tensor]:
        hidden = hidden.contiguous()
        attention, out = block.attn1, block.attn1.to_out[0]
        first = normalize(hidden, block.norm1)
        pair = block.layouts.linear(attention.to_q.weight, attention.to_k.weight, attention.to_v.weight)
        projected = multiply(first.output, pair.forward)
        read, sums = attend(projected, attention.heads, is_causal=False)
        out_pair = out.layouts.linear(out.weight)
        after = multiply_and_add(read, out_pair.forward, out.bias, hidden)
        second = normalize(after, block.norm2)
        query = block.attn2.to_q
        query_pair = query.layouts.linear(query.weight)
        ctx.save_for_backward(hidden, first.mean, first.scale, projected, read, sums, after, second.mean, second.scale)
        ctx.block, ctx.weights = block, (pair.backward, out_pair.backward, query_pair.backward)
        return after, multiply(second.output, query_pair.forward, query.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, mean1, scale1, projected, read, sums, after, mean2, scale2 = ctx.saved_tensors
        block, (weight, out_weight, query_weight) = ctx.block, ctx.weights
        gradient = normalize_backward(multiply(gradients[1], query_weight), after, mean2, scale2, block.norm2)
        gradient = gradient.add_(gradients[0])
        inner = multiply(gradient, out_weight)
        inner = attend_backward(inner, projected, read, sums, block.attn1.heads, is_causal=False)
        inner = normalize_backward(multiply(inner, weight), hidden, mean1, scale1, block.norm1)
        return inner.add_(gradient), None


class _FeedForward(torch.autograd.Function):
    """From hidden states (B, N, C) and what cross-attention read (B, N, C) to the block's output (B, N, C)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, read: Tensor, block: "FrozenTransformerBlock") -> Tensor:
        out, inward, outward = block.attn2.to_out[0], block.ff.net[0].proj, block.ff.net[2]
        out_pair, in_pair = out.layouts.linear(out.weight), inward.layouts.linear(inward.weight)
        outward_pair = outward.layouts.linear(outward.weight)
        after = multiply_and_add(read, out_pair.forward, out.bias, hidden)
        third = normalize(after, block.norm3)
        wide = multiply(third.output, in_pair.forward, inward.bias)  # (B, N, 2 F)
        values, gates = wide.chunk(2, dim=-1)
        open_gates = functional.gelu(gates)
        output = multiply_and_add(values * open_gates, outward_pair.forward, outward.bias, after)
        ctx.save_for_backward(after, third.mean, third.scale, wide, open_gates)
        ctx.norm, ctx.weights = block.norm3, (out_pair.backward, in_pair.backward, outward_pair.backward)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        after, mean, scale, wide, open_gates = ctx.saved_tensors
        out_weight, in_weight, outward_weight = ctx.weights
        values, gates = wide.chunk(2, dim=-1)
        gradient = gradients[0].contiguous()
        inner = multiply(gradient, outward_weight)  # (B, N, F)
        of_wide = torch.empty_like(wide)
        of_values, of_gates = of_wide.chunk(2, dim=-1)
        torch.mul(inner, open_gates, out=of_values)
        torch.ops.aten.gelu_backward.grad_input(inner.mul_(values), gates, grad_input=of_gates)
        inner = normalize_backward(multiply(of_wide, in_weight), after, mean, scale, ctx.norm).add_(gradient)
        return inner, multiply(inner, out_weight), None


class FrozenTransformerBlock(BasicTransformerBlock):  # type: ignore[misc]
    """A transformer block that is not trained; made of a `BasicTransformerBlock` by `freeze_layers`."""

    layouts: Layouts
    attn1: Any
    attn2: Any
    ff: Any

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: Any = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: Any = None,
    ) -> Tensor:
        """As `BasicTransformerBlock`; where a part is trained after all, or no keys and values are given, by that."""
        asked = cross_attention_kwargs or {}
        key_values, processor = asked.get(KEY_VALUES), self.attn2.processor
        given = (attention_mask, encoder_attention_mask, encoder_hidden_states)
        usual = key_values is not None and isinstance(processor, KeyValueProcessor)
        usual = usual and type(self.attn1.processor) is SelfAttentionProcessor and not self.training
        if not usual or any(each is not None for each in given) or not is_frozen(*self._layers()):
            plain: Tensor = super().forward(
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask,
                timestep,
                cross_attention_kwargs,
                class_labels,
                added_cond_kwargs,
            )
            return plain
        after, query = _SelfAttention.apply(hidden_states, self)  # type: ignore[no-untyped-call]
        rows, positions, _ = query.shape
        query = query.view(rows, positions, self.attn2.heads, -1).transpose(1, 2)  # (B, H, N, D)
        read = processor.read(query, key_values, asked.get(RECORDER)).transpose(1, 2).reshape(rows, positions, -1)
        output: Tensor = _FeedForward.apply(after, read, self)  # type: ignore[no-untyped-call]
        return output

    def _layers(self) -> tuple[nn.Module, ...]:
        one, other, net = self.attn1, self.attn2, self.ff.net
        attention = (one.to_q, one.to_k, one.to_v, one.to_out[0], other.to_q, other.to_out[0])
        return (*attention, net[0].proj, net[2], self.norm1, self.norm2, self.norm3)


def freeze_transformer_block(block: Any) -> bool:
    """Make a frozen one of a transformer block of the usual kind; False for others."""
    if type(block) is not BasicTransformerBlock:
        return False
    usual = block.norm_type == "layer_norm" and block.attn2 is not None and not block.only_cross_attention
    usual = usual and block.pos_embed is None and block._chunk_size is None and type(block.ff.net[0]) is GEGLU
    usual = usual and len(block.ff.net) == 3 and isinstance(block.ff.net[2], nn.Linear)
    if not usual or getattr(block, "fuser", None) is not None:
        return False
    for attention in (block.attn1, block.attn2):
        strange = (attention.group_norm, attention.spatial_norm, attention.norm_q, attention.norm_k)
        if any(each is not None for each in strange) or attention.residual_connection:
            return False
        if (
            attention.rescale_output_factor != 1.0
            or attention.scale != (attention.inner_dim // attention.heads) ** -0.5
        ):
            return False
    if any(getattr(block.attn1, name).bias is not None for name in ("to_q", "to_k", "to_v")):
        return False
    block.__class__ = FrozenTransformerBlock
    block.layouts = Layouts()
    return True
