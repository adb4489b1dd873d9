"""The linear latent code, and the autoencoder weights that compute it exactly.

An 8x8 patch of a picture is coded by its 16 principal components, each divided by the square root of its deviation,
so that coarse structure keeps a larger deviation than fine texture; patches count the more, the more of them the
product covers. AutoencoderKL's encoder can compute any such code: its residual branches are switched off, the
stride-2 convolutions gather 2x2, 4x4 and 8x8 pixels, large constants fix the statistics of its last normalisation,
and its last activation becomes linear on pairs of opposite sign, as silu(z) - silu(-z) = z. Only the decoder has to
be learnt, and the UNet can be trained on the latents at once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from benchmarks.showroom.base_model.architecture import AUTOENCODER_GROUPS, LATENT_CHANNELS

PATCH: Final = 8
_WHITENING: Final = 0.5
_PRODUCT_WEIGHT: Final = 4.0
_CONSTANT: Final = 30.0
_LOG_VARIANCE: Final = -8.0
_GROUP_SIZE: Final = 12


class PatchCode:
    """Linear code of 8x8 patches, fitted to pictures; its values have mean 0, and deviation 1 over all channels."""

    def __init__(self, pictures: Tensor, cover: Tensor) -> None:
        """Fit to pictures (n, 3, s, s) in [-1, 1] with masks (n, 1, s, s) in [0, 1]."""
        patches = functional.pixel_unshuffle(pictures.double(), PATCH).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH**2)
        weight = 1 + _PRODUCT_WEIGHT * functional.avg_pool2d(cover.double(), PATCH).reshape(-1, 1)
        weight /= weight.sum()
        mean = (weight * patches).sum(0)
        centred = patches - mean
        values, vectors = torch.linalg.eigh((centred * weight).T @ centred)
        deviation = values[-LATENT_CHANNELS:].flip(0).clamp_min(1e-12).sqrt()
        left = deviation ** (1 - _WHITENING)
        scale = deviation**_WHITENING * left.square().mean().sqrt()
        self.explained = float(values[-LATENT_CHANNELS:].sum() / values.sum())
        """Share of the patches' weighted variance that the code holds."""
        self.weight = (vectors[:, -LATENT_CHANNELS:].flip(1) / scale).T
        """(16, 192); a patch's values are ordered by channel, row, column."""
        self.bias = -self.weight @ mean
        """(16,)"""
        small = (
            functional.pixel_unshuffle(pictures.double(), PATCH // 2)
            .permute(0, 2, 3, 1)
            .reshape(-1, 3 * (PATCH // 2) ** 2)
        )
        _, self.quarter_basis = torch.linalg.eigh(small.T @ small / len(small))
        """(48, 48), ascending: orthonormal directions of 4x4 patches."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """Code (b, 16, s / 8, s / 8) of pictures (b, 3, s, s)."""
        patches = functional.pixel_unshuffle(pictures.double(), PATCH)
        return functional.conv2d(patches, self.weight[:, :, None, None], self.bias).to(pictures.dtype)


@torch.no_grad()
def install_patch_code(model: AutoencoderKL, code: PatchCode) -> None:
    """Set the encoder's weights so that its posterior mean is the code; the decoder stays as it is.

    Raises:
        ValueError: if the encoder has not four levels with growing numbers of channels, at least 12 and at last 96.
    """
    channels = tuple(int(number) for number in model.config.block_out_channels)
    growing = all(low < high for low, high in pairwise(channels))
    if len(channels) != 4 or not growing or channels[0] < 12 or channels[3] != AUTOENCODER_GROUPS * _GROUP_SIZE:
        raise ValueError(f"block_out_channels: got {channels}, expected four growing numbers from 12 or more to 96")
    kept = min(channels[1], 48)
    encoder = model.encoder
    for parameter in encoder.parameters():
        parameter.zero_()
    for module in encoder.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.weight.fill_(1.0)
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1.0
    blocks = encoder.down_blocks
    # 2x2 pixels of 3 channels: 12 values, ordered by channel, row, column.
    gather = blocks[0].downsamplers[0].conv.weight
    for channel in range(3):
        for row in range(2):
            for column in range(2):
                gather[channel * 4 + row * 2 + column, channel, row, column] = 1.0
    # 4x4 pixels: the coordinates along their strongest directions.
    for value in range(12):
        blocks[1].resnets[0].conv_shortcut.weight[value, value, 0, 0] = 1.0
    basis = code.quarter_basis[:, -kept:].reshape(
        3, 2, 2, 2, 2, kept
    )  # channel, row, row in pair, column, column in pair
    quarter = basis.permute(5, 0, 2, 4, 1, 3).reshape(kept, 12, 2, 2)
    blocks[1].downsamplers[0].conv.weight[:kept, :12, :2, :2] = quarter.float()
    # 8x8 pixels: the code.
    for value in range(kept):
        blocks[2].resnets[0].conv_shortcut.weight[value, value, 0, 0] = 1.0
    whole = (
        code.weight.reshape(LATENT_CHANNELS, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(LATENT_CHANNELS, 2, 2, 48)
    )
    blocks[2].downsamplers[0].conv.weight[:LATENT_CHANNELS, :kept, :2, :2] = (
        (whole @ code.quarter_basis[:, -kept:]).permute(0, 3, 1, 2).float()
    )
    blocks[2].downsamplers[0].conv.bias[:LATENT_CHANNELS] = code.bias.float()
    # Groups of 12: two values with both signs, and eight constants that make up nearly all of the group's deviation.
    spread = blocks[3].resnets[0].conv_shortcut
    read = encoder.conv_out.weight
    for value in range(LATENT_CHANNELS):
        first = value // 2 * _GROUP_SIZE + value % 2 * 2
        for sign, channel in ((1.0, first), (-1.0, first + 1)):
            spread.weight[channel, value, 0, 0] = sign
            read[value, channel, 1, 1] = sign
    for group in range(AUTOENCODER_GROUPS):
        constants = group * _GROUP_SIZE + 4
        spread.bias[constants : constants + 4] = _CONSTANT
        spread.bias[constants + 4 : constants + 8] = -_CONSTANT
    encoder.conv_norm_out.weight.fill_(((8 * _CONSTANT**2 + 4) / _GROUP_SIZE) ** 0.5)
    encoder.conv_out.bias[LATENT_CHANNELS:] = _LOG_VARIANCE
    model.quant_conv.weight.copy_(torch.eye(2 * LATENT_CHANNELS)[:, :, None, None])
    model.quant_conv.bias.zero_()
