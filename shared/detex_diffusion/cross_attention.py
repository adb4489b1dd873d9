"""The cross-attention layers of a UNet: names, sizes, and processors that read keys and values computed beforehand.

Legend: B rows, N image positions, T text positions, H heads, D head dim, M chosen text positions.
"""

from collections.abc import Collection
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

KEY_VALUES = "key_values"
RECORDER = "recorder"

# Looking through all modules of a UNet takes longer than projecting a prompt, and gives the same each time.
_LAYERS: WeakKeyDictionary[nn.Module, dict[str, nn.Module]] = WeakKeyDictionary()


def cross_attention_layers(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """Cross-attention modules by name, in the order of the UNet's modules."""
    found = _LAYERS.get(unet)
    if found is None:
        found = {name: module for name, module in unet.named_modules() if name.rsplit(".", 1)[-1] == "attn2"}
        _LAYERS[unet] = found
    return dict(found)


def cross_attention_sizes(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, tuple[int, int]]:
    """Height and width of the attention map of each layer for latents of the given height and width."""
    levels = len(unet.config.block_out_channels)
    sizes = {}
    for name in cross_attention_layers(unet):
        match name.split("."):
            case ["down_blocks", index, *_]:
                level = int(index)
            case ["up_blocks", index, *_]:
                level = levels - 1 - int(index)
            case _:
                level = levels - 1  # the middle block
        # A downsampler halves and rounds up (convolution of width 3, stride 2, padding 1).
        sizes[name] = (-(-height // 2**level), -(-width // 2**level))
    return sizes


class AttendedText(Protocol):
    """The text of B rows as cross-attention reads it, for example `conditioning.KeyValueBatch`."""

    @property
    def rows(self) -> int:
        """B."""

    @property
    def pooled_text(self) -> Tensor | None:
        """(B, P), what the UNet adds to the embedding of the timestep; None where it takes none."""

    def attend(self, layer: str, query: Tensor) -> Tensor:
        """What the layer of a name reads for queries (B, H, N, D): (B, H, N, D)."""


class AttentionRecorder:
    """Collects cross-attention probabilities of one call of a UNet.

    Attributes:
        maps: By layer, (B, M, N): the mean over heads of the probabilities that N image positions give to M text
            positions. Differentiable.
    """

    def __init__(self, layers: Collection[str], positions: Tensor | None) -> None:
        """Record these layers; of text positions (B, M) int64 alone, or of all T where None."""
        self.layers = frozenset(layers)
        self.positions = positions
        self.maps: dict[str, Tensor] = {}

    def record(self, layer: str, probabilities: Tensor) -> None:
        """Keep what a layer attends to: probabilities (B, H, N, T)."""
        mean = probabilities.mean(dim=1).transpose(1, 2)  # (B, T, N)
        if self.positions is not None:
            index = self.positions.to(mean.device).unsqueeze(-1).expand(-1, -1, mean.shape[-1])
            mean = mean.gather(1, index)
        self.maps[layer] = mean


class KeyValueProcessor:
    """Processor of a cross-attention module. Holds no state of a call, so that any number of threads may share it.

    Without `key_values` it does what diffusers does, so that the UNet stays usable as it was.
    """

    def __init__(self, layer: str, plain: Any) -> None:
        """For the module of that name, whose processor so far is `plain`."""
        self.layer = layer
        self.plain = plain

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
        """Attention of image positions (B, N, channels) over the keys and values of this layer."""
        if key_values is None:
            plain: Tensor = self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return plain
        rows, positions, _ = hidden_states.shape
        query = attn.to_q(hidden_states).view(rows, positions, attn.heads, -1).transpose(1, 2)  # (B, H, N, D)
        attended = self.read(query, key_values, recorder).transpose(1, 2).reshape(rows, positions, -1)
        projected: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return projected.div(attn.rescale_output_factor)

    def read(self, query: Tensor, key_values: Any, recorder: AttentionRecorder | None = None) -> Tensor:
        """What queries (B, H, N, D) read of the keys and values of this layer: (B, H, N, D)."""
        if recorder is None or self.layer not in recorder.layers:
            attended: Tensor = key_values.attend(self.layer, query)
            return attended
        key, value = key_values.layers[self.layer]  # (B, H, T, D)
        mask = None if key_values.mask is None else key_values.mask[:, None, None, :]  # (B, 1, 1, T)
        # Scaled first: products of half-precision queries and keys may overflow.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, N, T)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        probabilities = scores.softmax(dim=-1)  # (B, H, N, T)
        recorder.record(self.layer, probabilities)
        recorded: Tensor = probabilities.to(value.dtype) @ value
        return recorded


class SelfAttentionProcessor(AttnProcessor2_0):  # type: ignore[misc]
    """Diffusers' processor; diffusers hands what cross-attention reads to self-attention as well, which ignores it."""

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
        output: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return output


def install_processors(unet: UNet2DConditionModel) -> None:
    """Let the attention of a UNet read keys and values where they are given; does nothing a second time."""
    for name, module in unet.named_modules():
        kind = name.rsplit(".", 1)[-1]
        if kind == "attn2" and not isinstance(module.processor, KeyValueProcessor):
            module.set_processor(KeyValueProcessor(name, module.processor))
        elif kind == "attn1" and not isinstance(module.processor, SelfAttentionProcessor):
            module.set_processor(SelfAttentionProcessor())


def head_shape(module: Any) -> tuple[int, int]:
    """(H, D) of a cross-attention module."""
    return int(module.heads), int(module.to_k.out_features) // int(module.heads)


def unsupported_attention(unet: UNet2DConditionModel) -> str | None:
    """Why the cross-attention of a UNet cannot read keys and values computed beforehand, or None where it can."""
    layers = cross_attention_layers(unet)
    if not layers:
        return "it has no cross-attention"
    for name, module in layers.items():
        for part in ("norm_cross", "norm_q", "norm_k", "group_norm", "spatial_norm", "added_kv_proj_dim"):
            if getattr(module, part, None) is not None:
                return f"its layer {name} has {part}"
        if module.residual_connection or not isinstance(module.to_k, nn.Linear):
            return f"its layer {name} is not plain cross-attention"
    return None
