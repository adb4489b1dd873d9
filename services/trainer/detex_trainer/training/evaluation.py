"""Measures a learner on a fixed batch: the photos as they are, with noise that no step depends on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_trainer.dataset import Batch, PhotoSet
from detex_trainer.methods.learner import Learner, StepNoise
from detex_trainer.methods.plain_prediction import PlainPrediction
from detex_trainer.objective import masked_denoising_loss
from detex_trainer.prompts import class_prompt

_SEED = 20_231_218
_SHARES = (0.15, 0.4, 0.65, 0.9)  # of the noise schedule
_MIDDLE = 0.4
_MOST_PHOTOS = 8
_NO_WORD = "a photo"


def measure(learner: Learner, photo_set: PhotoSet, noise_schedule: NoiseSchedule) -> dict[str, float]:
    """Numbers of a learner as it stands; the same before and after training but for what was learned.

    Each photo (the first 8 of a large set) is seen at four denoising steps spread over the schedule.
    """
    generator = torch.Generator().manual_seed(_SEED)
    batch = photo_set.report_batch(range(min(photo_set.photos, _MOST_PHOTOS)))
    sums: dict[str, float] = {}
    for share in _SHARES:
        measured: Mapping[str, float] = learner.measure(batch, _noise(batch, noise_schedule, share, generator))
        for name, value in measured.items():
            sums[name] = sums.get(name, 0.0) + value / len(_SHARES)
    return sums


def measuring_noise(batch: Batch, noise_schedule: NoiseSchedule) -> StepNoise:
    """Fixed noise for a batch at a denoising step where objects take their place."""
    return _noise(batch, noise_schedule, _MIDDLE, torch.Generator().manual_seed(_SEED))


@torch.no_grad()
def class_word_gain(base_model: BaseModel, photo_set: PhotoSet, class_word: str) -> float:
    """Share by which the class word lowers the base model's loss on the subjects of the photos.

    Against the prompt "a photo" at the same noise. Above 0 the base model sees in the photos what the word says.
    """
    generator = torch.Generator().manual_seed(_SEED)
    batch = photo_set.report_batch(range(min(photo_set.photos, _MOST_PHOTOS)))
    predictions = [PlainPrediction(base_model, prompt) for prompt in (class_prompt(class_word), _NO_WORD)]
    losses: list[Tensor] = [torch.zeros(()), torch.zeros(())]
    for share in _SHARES:
        noise = _noise(batch, base_model.noise_schedule, share, generator)
        noisy = base_model.noise_schedule.add_noise(batch.latents, noise.noise, noise.timesteps)
        target = base_model.noise_schedule.target(batch.latents, noise.noise, noise.timesteps)
        for i, predict in enumerate(predictions):
            prediction = predict(noisy, noise.timesteps, {})
            losses[i] = losses[i] + masked_denoising_loss(prediction, target, batch.masks * batch.valid).cpu()
    with_word, without = (float(loss) for loss in losses)
    return 1 - with_word / max(without, 1e-12)


def _noise(batch: Batch, noise_schedule: NoiseSchedule, share: float, generator: torch.Generator) -> StepNoise:
    """Noise at a share of the schedule."""
    rows = batch.latents.shape[0]
    timestep = int(share * (noise_schedule.training_timesteps - 1))
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
    return StepNoise(noise, torch.full((rows,), timestep, device=batch.latents.device))
