"""Sampling runs of the solvers, step by step, with timesteps and noise levels of diffusers' schedulers.

Rows are those of `solver.COLUMNS`; the formulas that they stand for are told there. Legend: n denoising steps.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import diffusers
import torch
from torch import Tensor

from detex_diffusion.noise_schedule import NoiseSchedule, PredictionType

TCD_STOCHASTICITY = 0.3
"""How much of each step's noise is fresh, from 0 to 1: gamma of trajectory consistency, as diffusers has it."""


class Run(NamedTuple):
    """One sampling run.

    Attributes:
        rows: n lines of a step table.
        initial_noise_scale: Standard deviation of the latents before the first step.
        levels: n pairs: latents before a step are the first x_0 and the second noise.
        added_noise: n standard deviations of fresh noise after a step; empty where there is none.
    """

    rows: list[list[float]]
    initial_noise_scale: float
    levels: Sequence[tuple[float, float]]
    added_noise: Sequence[float] = ()


def _scheduler(scheduler_class: Any, noise_schedule: NoiseSchedule, steps: int, **overrides: Any) -> Any:
    scheduler = scheduler_class.from_config(dict(noise_schedule.scheduler_config), **overrides)
    scheduler.set_timesteps(steps)
    return scheduler


def _levels(scheduler: Any, steps: int) -> tuple[list[float], Tensor]:
    """Timesteps (n) and noise levels (n + 1) of a scheduler, the last level that of the finished latents.

    Rounding lets diffusers' trailing spacing go one step too far for some n (61 of 1,000, for example): to timestep -1.
    """
    sigmas = scheduler.sigmas.double()
    return scheduler.timesteps.tolist()[:steps], torch.cat([sigmas[:steps], sigmas[-1:]])


def ddim_run(noise_schedule: NoiseSchedule, steps: int) -> Run:
    """Song et al. 2021 (arXiv 2010.02502), equation 12 with sigma_t = 0."""
    scheduler = _scheduler(diffusers.DDIMScheduler, noise_schedule, steps)
    alphas_cumprod = scheduler.alphas_cumprod.double()
    final = scheduler.final_alpha_cumprod.double()
    rows = []
    levels = []
    for timestep in scheduler.timesteps.tolist()[:steps]:
        # diffusers steps to t - N // n, which for some spacings is not quite the next timestep of the list.
        previous = timestep - noise_schedule.training_timesteps // steps
        alpha = alphas_cumprod[timestep]
        following = alphas_cumprod[previous] if previous >= 0 else final
        signal, noise = alpha.sqrt().item(), (1 - alpha).sqrt().item()
        next_signal, next_noise = following.sqrt().item(), (1 - following).sqrt().item()
        if noise_schedule.prediction_type is PredictionType.EPSILON:
            clean = _quotient(1.0, signal), _quotient(-noise, signal)
            direct = 0.0, next_noise
        else:
            clean = signal, -noise
            direct = next_noise * noise, next_noise * signal
        rows.append([timestep, 1.0, *clean, noise_schedule.clean_limit, *direct, next_signal, 0.0])
        levels.append((signal, noise))
    return Run(rows, float(scheduler.init_noise_sigma), levels)


def euler_run(noise_schedule: NoiseSchedule, steps: int) -> Run:
    """Karras et al. 2022 (arXiv 2206.00364), Algorithm 1 without churn: x' = x + (s' - s) (x - y) / s."""
    scheduler = _scheduler(diffusers.EulerDiscreteScheduler, noise_schedule, steps)
    timesteps, levels = _levels(scheduler, steps)
    rows = []
    for timestep, (sigma, next_sigma) in zip(timesteps, pairwise(levels.tolist()), strict=True):
        clean = _clean_of_level(noise_schedule, sigma)
        ratio = _quotient(next_sigma, sigma)
        input_scale = 1 / (sigma**2 + 1) ** 0.5
        rows.append([timestep, input_scale, *clean, float("inf"), ratio, 0.0, 1 - ratio, 0.0])
    return Run(rows, float(scheduler.init_noise_sigma), [(1.0, level) for level in levels[:steps].tolist()])


def dpm_solver_pp_2m_run(noise_schedule: NoiseSchedule, steps: int) -> Run:
    """Lu et al. 2022 (arXiv 2211.01095), Algorithm 2 (DPM-Solver++(2M)), with s = sigma / alpha, so e^-h = s' / s.

    First order at the first step, and at the last where diffusers' scheduler does so for stability.
    """
    scheduler = _scheduler(
        diffusers.DPMSolverMultistepScheduler,
        noise_schedule,
        steps,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
    )
    config = scheduler.config
    timesteps, sigmas = _levels(scheduler, steps)
    alphas = (sigmas**2 + 1).rsqrt().tolist()
    log_snr = (-sigmas.log()).tolist()  # lambda = log(alpha / sigma); infinite at the end
    levels = sigmas.tolist()
    low_order_at_end = (
        config.euler_at_final or (config.lower_order_final and steps < 15) or config.final_sigmas_type == "zero"
    )
    rows = []
    for i, timestep in enumerate(timesteps):
        signal, noise = alphas[i], alphas[i] * levels[i]
        if noise_schedule.prediction_type is PredictionType.EPSILON:
            clean = 1 / signal, -noise / signal
        else:
            clean = signal, -noise
        following = alphas[i + 1] * levels[i + 1] / noise
        gain = alphas[i + 1] * (1 - levels[i + 1] / levels[i])
        extrapolation = 0.0
        if i > 0 and not (i == steps - 1 and low_order_at_end):
            ratio = _quotient(log_snr[i] - log_snr[i - 1], log_snr[i + 1] - log_snr[i])
            extrapolation = gain * _quotient(0.5, ratio)
        rows.append([timestep, 1.0, *clean, float("inf"), following, 0.0, gain + extrapolation, -extrapolation])
    noise_levels = [(alpha, alpha * level) for alpha, level in zip(alphas[:steps], levels[:steps], strict=True)]
    return Run(rows, float(scheduler.init_noise_sigma), noise_levels)


def euler_ancestral_run(noise_schedule: NoiseSchedule, steps: int) -> Run:
    """Euler's method to a level below the next one, and noise up to it.

    Ancestral sampling of Ho et al. 2020 (arXiv 2006.11239) in the notation of Karras et al. 2022 (arXiv 2206.00364).
    """
    scheduler = _scheduler(diffusers.EulerAncestralDiscreteScheduler, noise_schedule, steps)
    timesteps, levels = _levels(scheduler, steps)
    rows, added_noise = [], []
    for timestep, (sigma, next_sigma) in zip(timesteps, pairwise(levels.tolist()), strict=True):
        up = next_sigma * (max(0.0, sigma**2 - next_sigma**2)) ** 0.5 / sigma
        down = max(0.0, next_sigma**2 - up**2) ** 0.5
        ratio = _quotient(down, sigma)
        input_scale = 1 / (sigma**2 + 1) ** 0.5
        clean = _clean_of_level(noise_schedule, sigma)
        rows.append([timestep, input_scale, *clean, float("inf"), ratio, 0.0, 1 - ratio, 0.0])
        added_noise.append(up)
    noise_levels = [(1.0, level) for level in levels[:steps].tolist()]
    return Run(rows, float(scheduler.init_noise_sigma), noise_levels, added_noise)


def lcm_run(noise_schedule: NoiseSchedule, steps: int) -> Run:
    """Luo et al. 2023 (arXiv 2310.04378), Algorithm 3: to the picture by the consistency function, and noise again."""
    scheduler = _scheduler(diffusers.LCMScheduler, noise_schedule, steps)
    alphas_cumprod = scheduler.alphas_cumprod.double()
    timesteps = scheduler.timesteps.tolist()
    rows, levels, added_noise = [], [], []
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        signal, noise = _signal_and_noise(alphas_cumprod[timestep])
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        next_signal, next_noise = (1.0, 0.0) if following is None else _signal_and_noise(alphas_cumprod[following])
        clean = _clean_of_rates(noise_schedule, signal, noise)
        rows.append(
            [timestep, 1.0, *clean, noise_schedule.clean_limit, next_signal * skip, 0.0, next_signal * out, 0.0]
        )
        levels.append((signal, noise))
        added_noise.append(next_noise)
    return Run(rows, float(scheduler.init_noise_sigma), levels, added_noise)


def tcd_run(noise_schedule: NoiseSchedule, steps: int) -> Run:
    """Zheng et al. 2024 (arXiv 2402.19159), Algorithm 4, with gamma = `TCD_STOCHASTICITY`."""
    scheduler = _scheduler(diffusers.TCDScheduler, noise_schedule, steps)
    alphas_cumprod = scheduler.alphas_cumprod.double()
    timesteps = scheduler.timesteps.tolist()
    rows, levels, added_noise = [], [], []
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        signal, noise = _signal_and_noise(alphas_cumprod[timestep])
        between = math.floor((1 - TCD_STOCHASTICITY) * (following or 0))
        to_signal, to_noise = _signal_and_noise(alphas_cumprod[between])
        # What is between is noised on to the next step; after the last it is the picture.
        kept, fresh = 1.0, 0.0
        if following is not None:
            ratio = (alphas_cumprod[following] / alphas_cumprod[between]).item()
            kept, fresh = ratio**0.5, (1 - ratio) ** 0.5
        if noise_schedule.prediction_type is PredictionType.EPSILON:
            direct = 0.0, kept * to_noise
        else:
            direct = kept * to_noise * noise, kept * to_noise * signal
        clean = _clean_of_rates(noise_schedule, signal, noise)
        rows.append([timestep, 1.0, *clean, float("inf"), *direct, kept * to_signal, 0.0])
        levels.append((signal, noise))
        added_noise.append(fresh)
    return Run(rows, float(scheduler.init_noise_sigma), levels, added_noise)


def _signal_and_noise(alpha_cumprod: Tensor) -> tuple[float, float]:
    return alpha_cumprod.sqrt().item(), (1 - alpha_cumprod).sqrt().item()


def _clean_of_rates(noise_schedule: NoiseSchedule, signal: float, noise: float) -> tuple[float, float]:
    """Clean latents from latents and output, for latents signal x_0 + noise eps."""
    if noise_schedule.prediction_type is PredictionType.EPSILON:
        return _quotient(1.0, signal), _quotient(-noise, signal)
    return signal, -noise


def _clean_of_level(noise_schedule: NoiseSchedule, sigma: float) -> tuple[float, float]:
    """Clean latents from latents and output, for latents x_0 + sigma eps."""
    if noise_schedule.prediction_type is PredictionType.EPSILON:
        return 1.0, -sigma
    return 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
