"""Products and normalisations of frozen weights in oneDNN's layouts, each with the gradient of its input alone.

Weights lie in the layout that oneDNN reads, once for the forward half of a pass and once, transposed, for the backward
half: no call reorders them, and products in float32 do not go through MKL, which makes little of processors of other
makers (measured on an AMD EPYC with AVX-512: 2.2 times the time). Results agree with torch's own to rounding.

Legend: I and O input and output width or channels, B rows, H heads, N positions, D head dim.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Pair(NamedTuple):
    """A frozen weight in the layouts of both halves of a pass.

    Attributes:
        forward: Of the product with the weight.
        backward: Of the product with its transpose.
    """

    forward: Tensor
    backward: Tensor


class Layouts:
    """Weights in both layouts, made when they are first needed and whenever one of them has changed."""

    def __init__(self) -> None:
        # Read and replaced as one: several threads may share a pass.
        self._kept: tuple[tuple[tuple[Tensor, int], ...], Pair] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Layouts":
        return Layouts()

    def linear(self, *weights: Tensor, scale: float = 1.0) -> Pair:
        """Of weights (O, I), one below the other, times a factor that is the same at each call."""
        found = self._find(weights)
        if found is not None:
            return found
        weight = torch.cat([each.detach().reshape(each.shape[0], -1) for each in weights])
        weight = weight * scale if scale != 1.0 else weight
        reorder = torch.ops.mkldnn._reorder_linear_weight
        return self._keep(weights, Pair(reorder(weight, None), reorder(weight.t().contiguous(), None)))

    def convolution(self, weight: Tensor, padding: list[int], shape: list[int]) -> Pair:
        """Of a weight (O, I, k, k) for pixels of a shape (B, I, h, w)."""
        found = self._find((weight,))
        if found is not None:
            return found
        plain = weight.detach()
        turned = plain.flip(2, 3).transpose(0, 1).contiguous()
        full = [weight.shape[-1] - 1 - each for each in padding]
        # The layout follows from the size of the input; that of the first serves the others.
        of_outputs = [shape[0], int(weight.shape[0]), *shape[2:]]
        return self._keep((weight,), Pair(_reordered(plain, padding, shape), _reordered(turned, full, of_outputs)))

    def _find(self, weights: tuple[Tensor, ...]) -> Pair | None:
        kept = self._kept
        if kept is None or len(kept[0]) != len(weights):
            return None
        same = all(w is of and w._version == version for w, (of, version) in zip(weights, kept[0], strict=True))
        return kept[1] if same else None

    def _keep(self, weights: tuple[Tensor, ...], pair: Pair) -> Pair:
        self._kept = tuple((weight, weight._version) for weight in weights), pair
        return pair


def multiply(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Hidden states (..., I) times a weight (O, I) in oneDNN's layout or a plain one: (..., O)."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(hidden.contiguous(), weight, bias, "none", [], "")
    return output


def multiply_and_add(hidden: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
    """The same plus a residual (..., O)."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
        hidden.contiguous(), residual.contiguous(), weight, bias, "add"
    )
    return output


def convolve(pixels: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    """Pixels (B, I, h, w) convolved at stride 1 with a weight in oneDNN's layout: (B, O, h, w), channels last."""
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        channels_last(pixels), weight, bias, padding, [1, 1], [1, 1], 1, "none", [], ""
    )
    return output


def channels_last(pixels: Tensor) -> Tensor:
    """Pixels (B, C, h, w) with the channels next to each other in memory."""
    return pixels.contiguous(memory_format=torch.channels_last)


class Normalized(NamedTuple):
    """Something normalised, and what the way back needs of it.

    Attributes:
        output: Of the shape of the input.
        mean: Of each group or position.
        scale: Inverse deviation of each group or position.
    """

    output: Tensor
    mean: Tensor
    scale: Tensor


def normalize_groups(pixels: Tensor, norm: nn.GroupNorm) -> Normalized:
    """Group normalisation of pixels (B, C, h, w)."""
    rows, channels, height, width = pixels.shape
    return Normalized(
        *torch.native_group_norm(
            pixels, norm.weight, norm.bias, rows, channels, height * width, norm.num_groups, norm.eps
        )
    )


def normalize_groups_backward(
    gradient: Tensor, pixels: Tensor, mean: Tensor, scale: Tensor, norm: nn.GroupNorm
) -> Tensor:
    """Gradient of the pixels, of that of what `normalize_groups` made of them."""
    rows, channels, height, width = pixels.shape
    found: Tensor = torch.ops.aten.native_group_norm_backward(
        channels_last(gradient),
        pixels,
        mean,
        scale,
        norm.weight,
        rows,
        channels,
        height * width,
        norm.num_groups,
        [True, False, False],
    )[0]
    return found


def normalize(hidden: Tensor, norm: nn.LayerNorm) -> Normalized:
    """Layer normalisation of hidden states (..., C)."""
    shape = list(norm.normalized_shape)
    return Normalized(*torch.native_layer_norm(hidden, shape, norm.weight, norm.bias, norm.eps))


def normalize_backward(gradient: Tensor, hidden: Tensor, mean: Tensor, scale: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Gradient of the hidden states, of that of what `normalize` made of them."""
    found: Tensor = torch.ops.aten.native_layer_norm_backward(
        gradient, hidden, list(norm.normalized_shape), mean, scale, norm.weight, norm.bias, [True, False, False]
    )[0]
    return found


def attend(projected: Tensor, heads: int, *, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Self-attention over queries, keys and values (B, N, 3 C) side by side.

    Returns:
        What each position reads (B, N, C), and log-sums for the way back.
    """
    query, key, value = _split_heads(projected, heads)
    read, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal)
    return read.transpose(1, 2).reshape(*projected.shape[:2], -1), sums


def attend_backward(
    gradient: Tensor, projected: Tensor, read: Tensor, sums: Tensor, heads: int, *, is_causal: bool
) -> Tensor:
    """Gradient (B, N, 3 C) of queries, keys and values, of that of what was read (B, N, C)."""
    rows, positions, _ = projected.shape
    query, key, value = _split_heads(projected, heads)
    of_heads = (rows, positions, heads, -1)
    parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        gradient.view(of_heads).transpose(1, 2),
        query,
        key,
        value,
        read.view(of_heads).transpose(1, 2),
        sums,
        0.0,
        is_causal,
    )
    return torch.cat([part.transpose(1, 2) for part in parts], dim=2).view(rows, positions, -1)


def _split_heads(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    rows, positions, _ = projected.shape
    query, key, value = projected.view(rows, positions, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value  # (B, H, N, D)


def _reordered(weight: Tensor, padding: list[int], shape: list[int]) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, [1, 1], [1, 1], 1, shape)
    return packed
