"""Noise levels at which words are told from one another."""

from dataclasses import dataclass

from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.base_model_family import BaseModelFamily, family_of

_SIDE = 8
"""Cells of latents that levels of latents made of patches are given for."""


@dataclass(frozen=True)
class NoiseLevels:
    """Shares of the schedule.

    Attributes:
        first: At which all candidates are tried.
        second: At which the best are tried.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]


def is_made_of_patches(base_model: BaseModel) -> bool:
    """Whether neighbouring latents say nearly the same, as neighbouring pixels do; those of Stable Diffusion do not."""
    return family_of(base_model.unet.config) is BaseModelFamily.EMBEDDED


def timestep_of(base_model: BaseModel, level: float, latents: Tensor) -> int:
    """The timestep of a noise level in latents (..., h, w).

    Noise that differs from cell to cell hides less of what many cells say alike. Where latents are made of patches, a
    level is therefore that of 8 x 8 cells, and larger latents get as much more noise as leaves the same in the mean
    over cells: the shift of Hoogeboom, Heek, Salimans, *simple diffusion*, ICML 2023 (arXiv 2301.11093). Those of
    Stable Diffusion are left as they are: in them, the middle of the schedule tells words best (Li et al., ICCV 2023).
    """
    schedule = base_model.noise_schedule
    timestep = int(level * schedule.training_timesteps)
    side = min(latents.shape[-2:])
    if side == _SIDE or not is_made_of_patches(base_model):
        return timestep
    signal = schedule.alphas_cumprod
    ratio = signal / (1 - signal)  # signal to noise, falling
    wanted = float(ratio[timestep]) * (_SIDE / side) ** 2
    return min(int((ratio > wanted).sum()), schedule.training_timesteps - 1)
