"""Latents: initial noise, pictures into latents, latents into pictures.

Legend: B rows, C latent channels, h and w latent height and width, H and W picture height and width in pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detex_core.errors import FailedPreconditionError


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of a seed: the same on every device, and StableDiffusionPipeline's for a CPU generator.

    Args:
        seed: 0 to 2^64 - 1, of which torch's CPU generator (Mersenne Twister) takes the lower 32 bits: seeds that are
            equal modulo 2^32 give the same noise.
        shape: (C, h, w), or (B, C, h, w) for B rows from one generator.

    Returns:
        Noise of that shape, float32 on the CPU; to be scaled by `StepTable.initial_noise_scale`.
    """
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)


class StepNoise:
    """Fresh noise of an image after each step: what follows its initial noise in the stream of its seed.

    The same on every device, and that of diffusers' pipelines for a CPU generator.
    """

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        """Noise of a shape (C, h, w); the seed is that of `initial_noise`."""
        self._shape = shape
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self.draw()  # the initial noise

    def draw(self) -> Tensor:
        """The next: (C, h, w) float32 on the CPU, standard normal."""
        return torch.randn(self._shape, generator=self._generator, dtype=torch.float32)


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as (B, 3, H, W) float32 in -1 to 1; other modes than RGB are converted."""
    arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).div(127.5).sub(1)


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Pictures of pixels (B, 3, H, W) in -1 to 1, clipped and rounded to 8 bits."""
    levels = pixels.float().div(2).add(0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return [Image.fromarray(array) for array in levels.permute(0, 2, 3, 1).cpu().numpy()]


@torch.no_grad()
def encode_images(vae: Any, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Latents (B, C, h, w) of pixels (B, 3, H, W) in -1 to 1, scaled as the UNet expects them.

    Args:
        vae: AutoencoderKL of the base model.
        pixels: Height and width multiples of the VAE's factor.
        generator: CPU generator to sample from the posterior; None takes its mode.
    """
    posterior = vae.encode(pixels.to(device=vae.device, dtype=vae.dtype)).latent_dist
    latents = posterior.mode() if generator is None else posterior.sample(generator)
    mean, deviation = _statistics(vae, latents)
    return (latents - mean) * vae.config.scaling_factor / deviation  # type: ignore[no-any-return]


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) float32, about -1 to 1, of latents (B, C, h, w).

    Raises:
        FailedPreconditionError: The result is not finite, as with a VAE whose activations overflow float16.
    """
    latents = latents.to(device=vae.device, dtype=vae.dtype)
    mean, deviation = _statistics(vae, latents)
    scaled = latents * deviation / vae.config.scaling_factor + mean
    pixels: Tensor = vae.decode(scaled, return_dict=False)[0].float()
    if not bool(torch.isfinite(pixels).all()):
        raise FailedPreconditionError(
            f"The VAE decodes to values that are not finite in {vae.dtype}; load the base model in float32 or bfloat16."
        )
    return pixels


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Mean and deviation (1, C, 1, 1) of the VAE's latents where its config gives them, else 0 and 1."""
    mean, deviation = (getattr(vae.config, key, None) for key in ("latents_mean", "latents_std"))
    if mean is None or deviation is None:
        return 0.0, 1.0
    return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(deviation).view(1, -1, 1, 1)
