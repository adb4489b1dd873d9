"""Matrix products that read the same input made one: fewer and larger launches, for compiled steps.

Queries, keys and values of self-attention are one product; so are the projections of the timestep of all residual
blocks, which read the same embedding. The weights lie one after the other in one tensor, of which the layers' own
become views: nothing takes memory twice.

Legend: B rows, N image positions, H heads, D head dim, E channels of the timestep's embedding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from detex_diffusion.cross_attention import AttentionRecorder, SelfAttentionProcessor

_UNSUPPORTED_PARTS = ("group_norm", "spatial_norm", "norm_q", "norm_k", "norm_cross")


class FusedSelfAttentionProcessor(SelfAttentionProcessor):
    """Self-attention whose queries, keys and values are one product of `attn.fused_weight`; holds no state."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        key_values: Any = None,
        recorder: AttentionRecorder | None = None,
    ) -> Tensor:
        """Attention of image positions (B, N, channels) among themselves."""
        rows, positions, _ = hidden_states.shape
        fused = functional.linear(hidden_states, attn.fused_weight).view(rows, positions, 3, attn.heads, -1)
        query, key, value = (part.transpose(1, 2) for part in fused.unbind(2))  # (B, H, N, D)
        attended = functional.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(1, 2).reshape(rows, positions, -1)
        projected: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return projected.div(attn.rescale_output_factor)


class TimestepProjections(nn.Module):
    """The projections of the timestep of all residual blocks, in place of what follows its embedding."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter) -> None:
        """Those of all blocks one after the other."""
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, E) to (B, channels of all blocks)."""
        return functional.linear(functional.silu(embedding), self.weight, self.bias)


class BlockActivation(nn.Module):
    """The activation of a block's pictures (B, C, h, w), which leaves projections of the timestep as they are."""

    def forward(self, states: Tensor) -> Tensor:
        """The same shape."""
        return functional.silu(states) if states.ndim == 4 else states


class BlockPart(nn.Module):
    """A block's part of the projections of all blocks."""

    def __init__(self, start: int, stop: int) -> None:
        """Columns `start` to `stop`."""
        super().__init__()
        self._start, self._stop = start, stop

    def forward(self, projections: Tensor) -> Tensor:
        """(B, channels of all blocks) to (B, stop - start)."""
        return projections[:, self._start : self._stop]


def fuse_projections(unet: UNet2DConditionModel) -> None:
    """Make one product of those that read the same input.

    What is not as in Stable Diffusion stays as it is. Parameters of the UNet, and of others that share them, become
    views of larger tensors, with the same values.
    """
    for name, module in unet.named_modules():
        if name.rsplit(".", 1)[-1] == "attn1" and _is_plain(module):
            module.fused_weight = _joined([module.to_q.weight, module.to_k.weight, module.to_v.weight])
            module.set_processor(FusedSelfAttentionProcessor())
    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    if unet.time_embed_act is None and blocks and all(_is_plain_block(block) for block in blocks):
        linears = [block.time_emb_proj for block in blocks]
        weights, biases = ([getattr(linear, part) for linear in linears] for part in ("weight", "bias"))
        start = 0
        for block in blocks:
            stop = start + block.time_emb_proj.out_features
            block.time_emb_proj, block.nonlinearity = BlockPart(start, stop), BlockActivation()
            start = stop
        unet.time_embed_act = TimestepProjections(_joined(weights), _joined(biases))


def _is_plain_block(block: ResnetBlock2D) -> bool:
    return (
        _is_linear(block.time_emb_proj, bias=True)
        and isinstance(block.nonlinearity, nn.SiLU)
        and not block.skip_time_act
        and block.time_embedding_norm == "default"
    )


def _is_plain(module: Any) -> bool:
    projections = (module.to_q, module.to_k, module.to_v)
    return (
        all(_is_linear(projection, bias=False) for projection in projections)
        and len({projection.weight.shape for projection in projections}) == 1
        and not any(getattr(module, part, None) for part in _UNSUPPORTED_PARTS)
        and not module.residual_connection
    )


def _is_linear(module: object, *, bias: bool) -> bool:
    return type(module) is nn.Linear and (module.bias is not None) is bias


@torch.no_grad()
def _joined(parts: Sequence[nn.Parameter]) -> nn.Parameter:
    """The parts one after the other; they become views of what is given."""
    whole = nn.Parameter(torch.cat([part.data for part in parts]), requires_grad=False)
    for part, view in zip(parts, torch.split(whole.data, [len(part) for part in parts]), strict=True):
        part.data = view
    return whole
