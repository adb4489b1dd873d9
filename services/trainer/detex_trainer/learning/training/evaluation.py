"""Measures a learner on a fixed batch: the photos as they are, with noise that no step depends on."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_trainer.domain.prompts import class_prompt
from detex_trainer.learning.methods.learner import Learner, StepNoise
from detex_trainer.learning.methods.objective import masked_denoising_loss
from detex_trainer.learning.methods.plain_prediction import PlainPrediction
from detex_trainer.learning.photos.dataset import Batch, PhotoSet

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


@dataclass(frozen=True)
class PlainLosses:
    """The base model's denoising loss on the subjects of the photos under plain words.

    Attributes:
        class_word: Under "a photo of a <class word>".
        no_word: Under "a photo".
    """

    class_word: float
    no_word: float

    @property
    def class_word_gain(self) -> float:
        """Share by which the class word lowers it; above 0 the base model sees in the photos what the word says."""
        return 1 - self.class_word / max(self.no_word, 1e-12)

    def subject_gain(self, subject_loss: float) -> float:
        """Share by which the subject word, under which the loss is so high, lowers it against the class word."""
        return 1 - subject_loss / max(self.class_word, 1e-12)


@torch.no_grad()
def plain_losses(base_model: BaseModel, photo_set: PhotoSet, class_word: str) -> PlainLosses:
    """What the base model makes of the photos' subjects under plain words; photos and noise as of `measure`."""
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
            loss = masked_denoising_loss(prediction, target, batch.masks * batch.valid)
            losses[i] = losses[i] + loss.cpu() / len(_SHARES)
    return PlainLosses(*(float(loss) for loss in losses))


def _noise(batch: Batch, noise_schedule: NoiseSchedule, share: float, generator: torch.Generator) -> StepNoise:
    """Noise at a share of the schedule."""
    rows = batch.latents.shape[0]
    timestep = int(share * (noise_schedule.training_timesteps - 1))
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
    return StepNoise(noise, torch.full((rows,), timestep, device=batch.latents.device))
