"""Which timesteps plain words are told apart at, by the size of the latents and the family of the base model."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from detex_diffusion.base_model import BaseModel
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_trainer.learning.methods.plain_words.noise_levels import is_made_of_patches, timestep_of

SCHEDULE = NoiseSchedule.from_config(
    {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
SIGNAL_TO_NOISE = SCHEDULE.alphas_cumprod / (1 - SCHEDULE.alphas_cumprod)


def base_model(text_width: int) -> BaseModel:
    unet = SimpleNamespace(config={"cross_attention_dim": text_width})
    return cast("BaseModel", SimpleNamespace(unet=unet, noise_schedule=SCHEDULE))


@pytest.mark.parametrize("level", [0.4, 0.6, 0.85])
def test_larger_latents_of_patches_get_more_noise(level: float) -> None:
    small, large = (timestep_of(base_model(192), level, torch.zeros(2, 4, side, side)) for side in (8, 16))
    assert small == int(level * 1000)
    assert float(SIGNAL_TO_NOISE[small] / SIGNAL_TO_NOISE[large]) == pytest.approx(4, rel=0.03)


def test_levels_end_with_the_schedule() -> None:
    latents = torch.zeros(1, 4, 512, 512)
    assert timestep_of(base_model(192), 0.9, latents) == 999


@pytest.mark.parametrize("text_width", [768, 1024, 2048])
def test_latents_of_stable_diffusion_are_taken_as_they_are(text_width: int) -> None:
    model: Any = base_model(text_width)
    assert not is_made_of_patches(model)
    assert timestep_of(model, 0.6, torch.zeros(1, 4, 64, 64)) == 600
