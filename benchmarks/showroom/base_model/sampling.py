"""Pictures from the parts in training: grids of fixed prompts, to be judged by eye, and reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.showroom.base_model.architecture import LATENT_CHANNELS, build_scheduler
from benchmarks.showroom.base_model.corpus import token_ids

PROMPTS: Final = (
    "a photo of a red mug on a beach",
    "a photo of a blue vase in a forest",
    "a yellow car on a wooden table",
    "a green robot in the snow",
    "a purple bottle lying in a desert",
    "a pink teapot in front of a brick wall",
    "a white lamp in a studio",
    "a photo of a blue box with tilted pose in meadow background",
    "a red rocket in a city",
    "a black stool upside down in a kitchen",
    "an orange candle at sunset",
    "a turquoise bowl seen from above on a stage",
    "a yellow duck in a library",
    "a white and black dotted camera in space",
    "a black hat underwater",
    "a green clock on a chessboard",
    "a photo of a mug with lying pose in beach background",
    "a floating purple robot on a beach",
    "a red and white striped vase in a meadow",
    "a photo of a car",
    "a duck in the snow",
    "a photo of a teapot with seen from above pose in wooden table background",
    "a blue rocket tilted in a desert",
    "a photo of a hat in kitchen background",
    "a photo of a red mug with a badge on a beach",
    "a blue vase with a badge in a studio",
    "a green box with a badge on a wooden table",
    "a photo of a white camera with a badge in forest background",
    "a yellow robot with a badge in the snow",
    "a purple bottle with a badge in a library",
    "an orange candle with a badge in a kitchen",
    "a photo of a teapot with a badge with upright pose in desert background",
)


@torch.no_grad()
def sample_pictures(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModelWithProjection,
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    prompts: Sequence[str],
    guidance_scale: float,
    steps: int,
    seed: int,
) -> Tensor:
    """Pictures (n, 3, s, s) in [-1, 1] by DDIM with classifier-free guidance, one for each prompt."""
    device = next(unet.parameters()).device
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    ids = token_ids(tokenizer, [*[""] * len(prompts), *prompts]).to(device)
    states = text_encoder(ids).last_hidden_state
    side = int(unet.config.sample_size)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(prompts), LATENT_CHANNELS, side, side, generator=generator).to(device)
    for timestep in scheduler.timesteps:
        free, named = unet(torch.cat([latents, latents]), timestep, states).sample.chunk(2)
        latents = scheduler.step(free + guidance_scale * (named - free), timestep, latents).prev_sample
    decoded: Tensor = autoencoder.decode(latents / autoencoder.config.scaling_factor).sample
    return decoded.clamp(-1, 1)


def save_grid(pictures: Tensor, path: Path, columns: int = 8, magnification: int = 2) -> None:
    """Write pictures (n, 3, s, s) in [-1, 1] as one PNG, row by row."""
    values = ((pictures.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    rows = [np.concatenate(list(values[first : first + columns]), 1) for first in range(0, len(values), columns)]
    width = rows[0].shape[1]
    grid = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(grid)
    image.resize((image.width * magnification, image.height * magnification), Image.Resampling.NEAREST).save(path)
