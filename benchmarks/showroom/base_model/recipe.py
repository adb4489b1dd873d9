"""The recipe: every number that training depends on, apart from the time it is given."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.showroom.base_model.architecture import ModelSize


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of the four phases; learning rates warm up, hold and fall to zero (see `schedule`)."""

    size: ModelSize = field(default_factory=ModelSize)
    seed: int = 0

    autoencoder_rate: float = 1.5e-3
    autoencoder_batch: int = 24
    autoencoder_edge_weight: float = 0.5
    autoencoder_noise: float = 0.1
    """Deviation of the noise on the latents that the decoder learns from, so that it bears with the UNet's small
    errors."""

    encoder_rate: float = 1e-3
    encoder_batch: int = 128
    encoder_label_weight: float = 0.5
    """Weight of naming the factors from the picture's features, beside the contrastive loss."""

    diffusion_rate: float = 1e-3
    diffusion_text_rate: float = 5e-4
    diffusion_batch: int = 48
    diffusion_mask_weight: float = 3.0
    """A latent cell that the product fills weighs 1 + this; one without weighs 1."""
    diffusion_average: float = 0.999
    """Decay of the exponential moving average of the weights."""
    diffusion_decay_share: float = 0.55
    """Share of the phase, at its end, over which the learning rate falls."""

    guidance_scale: float = 3.5
    sampling_steps: int = 25
