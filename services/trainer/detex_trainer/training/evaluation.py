"""Measures a learner on a fixed batch: the photos as they are, with noise that no step depends on."""

from collections.abc import Mapping

import torch

from detex_diffusion.noise_schedule import NoiseSchedule
from detex_trainer.dataset import PhotoSet
from detex_trainer.methods.learner import Learner, StepNoise

_SEED = 20_231_218
_SHARES = (0.15, 0.4, 0.65, 0.9)  # of the noise schedule
_MOST_PHOTOS = 8


def measure(learner: Learner, photo_set: PhotoSet, noise_schedule: NoiseSchedule) -> dict[str, float]:
    """Numbers of a learner as it stands; the same before and after training but for what was learned.

    Each photo (the first 8 of a large set) is seen at four denoising steps spread over the schedule.
    """
    generator = torch.Generator().manual_seed(_SEED)
    photos = range(min(photo_set.photos, _MOST_PHOTOS))
    batch = photo_set.report_batch(photos)
    sums: dict[str, float] = {}
    for share in _SHARES:
        timestep = int(share * (noise_schedule.training_timesteps - 1))
        noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
        timesteps = torch.full((len(photos),), timestep, device=batch.latents.device)
        measured: Mapping[str, float] = learner.measure(batch, StepNoise(noise, timesteps))
        for name, value in measured.items():
            sums[name] = sums.get(name, 0.0) + value / len(_SHARES)
    return sums
