"""The key and value projections of all cross-attention layers as one product, with the deltas of concepts in training.

One product in place of two for each layer, forward and backward, for the base model's projections and for the deltas
alike.

Legend: U prompts, B rows of a UNet call, T text tokens, E text width, M tokens of a concept, P output width of all
projections together.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from detex_diffusion.conditioning import KeyValueBatch, OwnedTokens, project
from detex_diffusion.cross_attention import cross_attention_layers, head_shape
from detex_diffusion.key_value_delta import PROJECTIONS, FullDelta, KeyValueDeltas
from detex_diffusion.key_value_vectors import KeyValueVectors
from detex_trainer.frozen.kernels import Layouts, multiply
from detex_trainer.frozen.layers import FrozenLinear, frozen_product

_NO_DELTAS = torch.zeros(0)
_LAYOUTS: WeakKeyDictionary[nn.Module, Layouts] = WeakKeyDictionary()


class _TrainedProduct(torch.autograd.Function):
    """Tokens (M, E) times a weight (P, E) in training: (M, P)."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        return multiply(tokens, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_tokens = multiply(gradient, weight.t().contiguous()) if ctx.needs_input_grad[0] else None
        return of_tokens, multiply(gradient.t(), tokens.t().contiguous())


def project_together(
    unet: UNet2DConditionModel,
    hidden: Tensor,
    owned: Sequence[OwnedTokens] = (),
    pooled_text: Tensor | None = None,
    places: Sequence[int] | None = None,
) -> KeyValueBatch:
    """As `conditioning.project`, to rounding; where layers are not frozen or deltas of another form, by that.

    Args:
        unet: As of `project`.
        hidden: As of `project`: (U, T, E).
        owned: As of `project`.
        pooled_text: As of `project`.
        places: The prompt that each of the B rows of the result reads; None for one row for each prompt.
    """
    places = list(range(hidden.shape[0])) if places is None else list(places)
    layers = cross_attention_layers(unet)
    linears = [getattr(module, name) for module in layers.values() for name in PROJECTIONS]
    stacked = [_stacked(part.deltas, layers) if part.deltas else _NO_DELTAS for part in owned]
    if any(type(each) is not FrozenLinear or each.weight.requires_grad or each.bias is not None for each in linears):
        return project(unet, hidden, owned, pooled_text).select(places)
    if any(each is None for each in stacked):
        return project(unet, hidden, owned, pooled_text).select(places)
    prompts, length, width = hidden.shape
    flat = hidden.reshape(prompts * length, width)
    layouts = _LAYOUTS.setdefault(unet, Layouts())
    output = frozen_product(flat, layouts.linear(*(each.weight for each in linears)))  # (U T, P)
    positions, added = [], []
    for part, weight in zip(owned, stacked, strict=True):
        tokens = part.tokens.reshape(-1).cpu()
        places_of_subject, rows_of_subject = part.subject_places(flat.device)
        if len(places_of_subject):
            positions.append(places_of_subject)
            added.append(_stacked_vectors(part.vectors, layers).index_select(0, rows_of_subject))
        if weight is None or weight is _NO_DELTAS or not bool(tokens.any()):
            continue
        if bool(tokens.all()):
            output = output + _TrainedProduct.apply(flat, weight)  # type: ignore[no-untyped-call]
            continue
        positions.append(tokens.nonzero().squeeze(1))
        added.append(_TrainedProduct.apply(flat.index_select(0, positions[-1]), weight))  # type: ignore[no-untyped-call]
    if positions:
        # Once for all: each addition would copy the keys and values of the whole batch.
        output = output.index_add(0, torch.cat(positions), torch.cat(added))
    output = output.view(prompts, length, -1)
    if places != list(range(prompts)):
        index = torch.tensor(places)
        output = output.index_select(0, index)
        pooled_text = None if pooled_text is None else pooled_text.index_select(0, index)
    parts = iter(torch.split(output, [int(each.out_features) for each in linears], dim=2))
    batch = {}
    for name, module in layers.items():
        heads, _ = head_shape(module)
        key, value = (next(parts).view(len(places), length, heads, -1).transpose(1, 2) for _ in PROJECTIONS)
        batch[name] = (key, value)  # each (B, H, T, D)
    return KeyValueBatch(batch, pooled_text=pooled_text)


def _stacked_vectors(vectors: KeyValueVectors, layers: dict[str, nn.Module]) -> Tensor:
    """The vectors of all layers side by side, (S, P)."""
    return torch.cat([tensor for name in layers for _, tensor in vectors[name].projections()], dim=1)


def _stacked(deltas: KeyValueDeltas, layers: dict[str, nn.Module]) -> Tensor | None:
    """The deltas of all layers one below the other (P, E); None where one is absent or of another form."""
    weights = []
    for name in layers:
        delta = deltas.get(name)
        for projection in PROJECTIONS:
            each = None if delta is None else getattr(delta, projection)
            if not isinstance(each, FullDelta):
                return None
            weights.append(each.weight)
    return torch.cat(weights)
