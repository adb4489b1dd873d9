"""Attention of a UNet without what diffusers does around each call; for UNets that are packed.

Diffusers looks up the signature of a processor at every call, which takes longer than the attention itself where
pictures are small (measured: 1 ms of a step of 12 ms).

Legend: B rows, N image positions.
"""

from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional

from detex_diffusion.cross_attention import KeyValueProcessor, SelfAttentionProcessor

_PARTS_OF_OTHER_KINDS = ("group_norm", "spatial_norm", "norm_q", "norm_k", "norm_cross", "added_kv_proj_dim")


class PackedAttention(Attention):  # type: ignore[misc]
    """Attention as a UNet of Stable Diffusion has it; made of diffusers' by `pack_attention`."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **arguments: Any,
    ) -> Tensor:
        """(B, N, channels) to the same; as diffusers' where a processor is not one of detex."""
        processor = self.processor
        attended: Tensor
        if type(processor) is SelfAttentionProcessor and encoder_hidden_states is None and attention_mask is None:
            return self._attend_to_itself(hidden_states)
        if isinstance(processor, KeyValueProcessor | SelfAttentionProcessor):
            attended = processor(self, hidden_states, encoder_hidden_states, attention_mask, **arguments)
        else:
            attended = super().forward(hidden_states, encoder_hidden_states, attention_mask, **arguments)
        return attended

    def _attend_to_itself(self, hidden_states: Tensor) -> Tensor:
        rows, positions, _ = hidden_states.shape
        query, key, value = (
            project(hidden_states).view(rows, positions, self.heads, -1).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        output: Tensor = self.to_out[0](attended.reshape(rows, positions, -1))
        return output if self.rescale_output_factor == 1 else output / self.rescale_output_factor


def pack_attention(module: nn.Module) -> int:
    """Let plain attention in a module take the short way; returns how many layers do so now."""
    packed = 0
    for layer in module.modules():
        if type(layer) is Attention and not layer.residual_connection:
            if any(getattr(layer, part, None) for part in _PARTS_OF_OTHER_KINDS):
                continue
            layer.__class__ = PackedAttention
            packed += 1
    return packed
