"""The parts of the base model: Stable Diffusion 1.x in small.

Pictures are 128x128 pixels, latents (16, 16, 16), text states (48, 192). Every part is the very class that Stable
Diffusion 1.x uses, so whatever loads the large model loads this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.showroom.base_model.tokenizer import MAX_TOKENS

LATENT_CHANNELS: Final = 16
AUTOENCODER_GROUPS: Final = 8


@dataclass(frozen=True)
class ModelSize:
    """Sizes of all parts. `picture_pixels` is the side of the pictures; a latent cell is 8 pixels wide."""

    picture_pixels: int = 128
    autoencoder_channels: tuple[int, ...] = (16, 32, 64, 96)
    unet_channels: tuple[int, ...] = (64, 128, 192)
    unet_heads: int = 4
    text_width: int = 192
    text_layers: int = 3
    text_heads: int = 4
    image_width: int = 192
    image_layers: int = 4
    image_heads: int = 4
    embedding_size: int = 128


TINY: Final = ModelSize(
    picture_pixels=64,
    unet_channels=(16, 16),
    unet_heads=2,
    text_width=16,
    text_layers=1,
    text_heads=2,
    image_width=16,
    image_layers=2,
    image_heads=2,
    embedding_size=8,
)
"""Sizes for tests."""


def build_autoencoder(size: ModelSize) -> AutoencoderKL:
    """AutoencoderKL with a factor of 8: pictures (3, s, s) in [-1, 1] to latents (16, s / 8, s / 8)."""
    levels = len(size.autoencoder_channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=size.autoencoder_channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=AUTOENCODER_GROUPS,
        sample_size=size.picture_pixels,
        mid_block_add_attention=False,
    )


def build_unet(size: ModelSize) -> UNet2DConditionModel:
    """UNet with cross-attention at every level; `attention_head_dim` counts heads, as in Stable Diffusion 1.x."""
    levels = len(size.unet_channels)
    return UNet2DConditionModel(
        sample_size=size.picture_pixels // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=size.unet_channels,
        layers_per_block=1,
        cross_attention_dim=size.text_width,
        attention_head_dim=size.unet_heads,
        norm_num_groups=16,
    )


def build_text_encoder(size: ModelSize, tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Text encoder with the projection that contrastive training needs; the exported folder holds it without."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=4 * size.text_width,
            projection_dim=size.embedding_size,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_heads,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_image_encoder(size: ModelSize) -> CLIPVisionModelWithProjection:
    """Vision transformer on 8-pixel patches, with a projection to the common space of pictures and texts."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=size.image_width,
            intermediate_size=4 * size.image_width,
            projection_dim=size.embedding_size,
            num_hidden_layers=size.image_layers,
            num_attention_heads=size.image_heads,
            image_size=size.picture_pixels,
            patch_size=8,
            hidden_act="quick_gelu",
        )
    )


def build_image_processor(size: ModelSize) -> CLIPImageProcessor:
    """Preprocessing of the image encoder: resize, and scale pixel values to [-1, 1]."""
    side = size.picture_pixels
    return CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def build_scheduler() -> DDIMScheduler:
    """Noise schedule: v prediction with zero terminal signal-to-noise ratio and trailing steps (arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
