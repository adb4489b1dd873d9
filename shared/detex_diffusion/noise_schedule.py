"""The forward process of a base model: how noise enters clean latents, and what the UNet predicts about it.

Legend: B rows, C latent channels, h and w latent height and width, N training timesteps.
Notation of Ho et al. 2020 (arXiv 2006.11239): x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps, with a_t `alphas_cumprod[t]`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from detex_diffusion.config_rules import unsupported
from detex_diffusion.scheduler_config import SCHEDULER_FILE, check_scheduler, clean_limit, filled, prediction_type


class PredictionType(StrEnum):
    """What the UNet predicts: the noise, or the velocity of Salimans and Ho 2022 (arXiv 2202.00512)."""

    EPSILON = "epsilon"
    VELOCITY = "v_prediction"


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process.

    Attributes:
        scheduler_config: Contents of `scheduler_config.json`, with the forward process of its class where it says
            nothing; solvers are built from it.
        prediction_type: What the UNet predicts.
        alphas_cumprod: (N,) float32 on the CPU, decreasing; the last is 0 where the schedule has zero terminal SNR.
        clean_limit: DDIM confines its prediction of x_0 to plus or minus this; infinite for all usual latent models.
    """

    scheduler_config: Mapping[str, Any]
    prediction_type: PredictionType
    alphas_cumprod: Tensor
    clean_limit: float = float("inf")

    @classmethod
    def from_config(cls, scheduler_config: Mapping[str, Any]) -> "NoiseSchedule":
        """Build from the config of any diffusers scheduler of the variance-preserving kind (PNDM, DDIM, Euler, DPM...).

        Only the config is read: the scheduler of the folder itself, which may want libraries that are not here, is
        never built.

        Raises:
            FailedPreconditionError: As `scheduler_config.check_scheduler`.
        """
        check_scheduler(scheduler_config)
        config = filled(scheduler_config)
        try:
            alphas_cumprod = diffusers.DDIMScheduler.from_config(config).alphas_cumprod
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            raise unsupported(SCHEDULER_FILE, f"diffusers refuses it: {error}") from error
        return cls(
            scheduler_config=config,
            prediction_type=PredictionType(prediction_type(config)),
            alphas_cumprod=alphas_cumprod.to(torch.float32),
            clean_limit=clean_limit(config),
        )

    @classmethod
    def from_folder(cls, folder: Path) -> "NoiseSchedule":
        """Build from `scheduler_config.json` in a folder; raises as `from_config` and as reading does."""
        return cls.from_config(json.loads((folder / "scheduler_config.json").read_text(encoding="utf-8")))

    @property
    def training_timesteps(self) -> int:
        """N, the number of timesteps of training."""
        return int(self.alphas_cumprod.shape[0])

    def signal_and_noise(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t), each (B, 1, ...) to go with `like` (B, ...), for integer timesteps (B,)."""
        alphas_cumprod = self.alphas_cumprod.to(like.device)[timesteps.to(like.device)]
        shape = (-1,) + (1,) * (like.ndim - 1)
        signal = alphas_cumprod.sqrt().view(shape)
        noise = (1 - alphas_cumprod).sqrt().view(shape)
        return signal.to(like.dtype), noise.to(like.dtype)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t (B, C, h, w) of clean latents and noise of the same shape at integer timesteps (B,) in 0 to N - 1."""
        signal_rate, noise_rate = self.signal_and_noise(timesteps, clean)
        return signal_rate * clean + noise_rate * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet is trained to predict at x_t: the noise, or v = sqrt(a_t) eps - sqrt(1 - a_t) x_0."""
        if self.prediction_type is PredictionType.EPSILON:
            return noise
        signal_rate, noise_rate = self.signal_and_noise(timesteps, clean)
        return signal_rate * noise - noise_rate * clean

    def predicted_clean(self, latents: Tensor, model_output: Tensor, timesteps: Tensor) -> Tensor:
        """x_0 (B, C, h, w) as the UNet sees it from x_t; not finite for epsilon prediction where a_t is 0."""
        signal_rate, noise_rate = self.signal_and_noise(timesteps, latents)
        if self.prediction_type is PredictionType.EPSILON:
            return (latents - noise_rate * model_output) / signal_rate
        return signal_rate * latents - noise_rate * model_output

    def predicted_noise(self, latents: Tensor, model_output: Tensor, timesteps: Tensor) -> Tensor:
        """Eps (B, C, h, w) as the UNet sees it from x_t."""
        if self.prediction_type is PredictionType.EPSILON:
            return model_output
        signal_rate, noise_rate = self.signal_and_noise(timesteps, latents)
        return signal_rate * model_output + noise_rate * latents

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """SNR(t) = a_t / (1 - a_t), (B,) float32."""
        alphas_cumprod = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return alphas_cumprod / (1 - alphas_cumprod)

    def min_snr_weights(self, timesteps: Tensor, gamma: float = 5.0) -> Tensor:
        """Loss weights (B,) of Hang et al. 2023 (arXiv 2303.09556), section 3.4, for the loss on this model's target.

        min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for velocity; at zero SNR both take their limits,
        1 and 0 (the velocity's target is there -x_0, which the latents say nothing about).

        Args:
            timesteps: (B,) integers.
            gamma: Greater than 0; the paper recommends 5.
        """
        snr = self.signal_to_noise(timesteps)
        clipped = snr.clamp(max=gamma)
        if self.prediction_type is PredictionType.VELOCITY:
            return clipped / (snr + 1)
        return torch.where(snr > 0, clipped / snr.clamp(min=torch.finfo(snr.dtype).tiny), torch.ones_like(snr))
