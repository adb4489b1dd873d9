"""The losses of the method as pure functions.

Legend: B pictures, C latent channels, (h, w) latent size, T text tokens, G groups of words, (n, n) size of attention
maps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-8


def region_weights(
    subject_masks: Tensor, explains_subject: Tensor, explains_background: Tensor, mask_floor: float, valid: Tensor
) -> Tensor:
    """Where the denoising loss looks, by what the words in each prompt can explain (DETEX, joint training).

    Args:
        subject_masks: (B, 1, h, w), 1 on the subject, 0 around it, 0 to 1 at its border.
        explains_subject: (B,) bool, whether a word of the prompt explains the subject.
        explains_background: (B,) bool, whether a word of the prompt explains what lies around the subject.
        mask_floor: Weight of what no word explains, 0 to 1.
        valid: (B, 1, h, w), 0 where the picture was padded, otherwise 1.

    Returns:
        (B, 1, h, w), not normalised.
    """
    inside = torch.where(explains_subject.view(-1, 1, 1, 1), 1.0, mask_floor)
    outside = torch.where(explains_background.view(-1, 1, 1, 1), 1.0, mask_floor)
    return (subject_masks * inside + (1 - subject_masks) * outside) * valid


def masked_denoising_loss(
    prediction: Tensor, target: Tensor, weights: Tensor, step_weights: Tensor | None = None
) -> Tensor:
    """Mean squared error under a mask, divided by the mask's mean: a small subject trains as fast as a large one.

    Args:
        prediction: (B, C, h, w) of the UNet.
        target: (B, C, h, w), noise or velocity.
        weights: (B, 1, h, w), at least 0; a picture whose weights are all 0 counts as 0.
        step_weights: (B,) weight of each picture's denoising step, for example `NoiseSchedule.min_snr_weights`.

    Returns:
        Scalar: the mean over the batch.
    """
    errors = (prediction - target).square().mean(dim=1, keepdim=True)  # (B, 1, h, w)
    per_picture = (errors * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp_min(_TINY)  # (B,)
    if step_weights is not None:
        per_picture = per_picture * step_weights
    return per_picture.mean()


def word_attention(layer_maps: Sequence[Tensor], groups: Tensor) -> Tensor:
    """Where in each picture groups of words are looked at.

    Args:
        layer_maps: Per layer (B, T, n, n), attention probabilities averaged over heads.
        groups: (B, G, T), 1 at the tokens of a group, 0 elsewhere; a group without tokens is absent from that prompt.

    Returns:
        (B, G, n, n): mean over layers and over the tokens of the group, divided by its own maximum (Break-A-Scene,
        Avrahami et al. 2023, section 3.3); 0 where the group is absent.
    """
    mean_map = torch.stack(list(layer_maps)).mean(dim=0)  # (B, T, n, n)
    shares = groups / groups.sum(dim=2, keepdim=True).clamp_min(1)
    maps = torch.einsum("bgt,bthw->bghw", shares, mean_map)
    return maps / maps.amax(dim=(2, 3), keepdim=True).clamp_min(_TINY)


def attention_loss(attention: Tensor, regions: Tensor, present: Tensor) -> Tensor:
    """Draw words to their regions: mean squared difference of map and region (DETEX, L_CA).

    Args:
        attention: (B, G, n, n) with maximum 1, see `word_attention`.
        regions: (B, G, n, n) from 0 to 1: the subject's mask for the subject, its inverse for the background.
        present: (B, G) bool, which groups a prompt has.

    Returns:
        Scalar: the mean over the groups that are present; 0 where there is none.
    """
    errors = (attention - regions).square().mean(dim=(2, 3))  # (B, G)
    return (errors * present).sum() / present.sum().clamp_min(1)


def attention_mass(attention: Tensor, masks: Tensor) -> Tensor:
    """Share of the attention that falls on a mask, 0 to 1: (...) for maps and masks (..., n, n)."""
    return (attention * masks).sum(dim=(-2, -1)) / attention.sum(dim=(-2, -1)).clamp_min(_TINY)


def key_value_drift(deltas: Sequence[Tensor], weights: Sequence[Tensor], hidden: Tensor) -> Tensor:
    """How far deltas move the keys and values of text that has nothing to do with the concept.

    Prior preservation without images: what a regularisation prompt reads in cross-attention shall stay as it was.

    Args:
        deltas: dW of some projections, each (O, E).
        weights: W of the same projections, each (O, E).
        hidden: (T, E) hidden states of the regularisation prompt.

    Returns:
        Scalar: |dW h|^2 / |W h|^2, the mean over the projections.
    """
    drifts = []
    for delta, weight in zip(deltas, weights, strict=True):
        scale = functional.linear(hidden, weight).square().mean().clamp_min(_TINY)
        drifts.append(functional.linear(hidden, delta).square().mean() / scale)
    return torch.stack(drifts).mean()


def attention_side(latent_side: int) -> int:
    """Side of the attention maps that the loss looks at.

    A quarter of the latents' side, where Stable Diffusion places objects (16 at latents of 64), but at least 8, or
    the whole side of smaller latents.
    """
    return max(latent_side // 4, min(8, latent_side))
