"""Solvers of the reverse process as tables of coefficients, so that one expression steps a batch of mixed solvers.

With x the latents, m the UNet's output and y the predicted clean latents (x_0), every solver here is

    y_i     = clamp(clean_from_latents x_i + clean_from_output m_i, -limit, limit)
    x_{i+1} = next_from_latents x_i + next_from_output m_i + next_from_clean y_i + next_from_previous_clean y_{i-1}

with scalars that depend on the solver and the step alone. The UNet reads input_scale x_i at `timestep`.
Legend: B rows of a batch, n denoising steps, K columns of a table, C latent channels.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any

import diffusers
import torch
from torch import Tensor

from detex_core.errors import FailedPreconditionError, invalid_input
from detex_diffusion.noise_schedule import NoiseSchedule, PredictionType


class Solver(StrEnum):
    """How latents are stepped from noise to picture."""

    DDIM = "ddim"
    EULER = "euler"
    DPM_SOLVER_PP_2M = "dpm_solver_pp_2m"


COLUMNS = (
    "timestep",
    "input_scale",
    "clean_from_latents",
    "clean_from_output",
    "clean_limit",
    "next_from_latents",
    "next_from_output",
    "next_from_clean",
    "next_from_previous_clean",
)
"""Columns of a table: `rows[..., COLUMNS.index(name)]`."""


@dataclass(frozen=True, eq=False)
class StepTable:
    """The coefficients of one sampling run.

    Attributes:
        solver: Whose they are.
        rows: (n, K) float32 on the CPU, one row per denoising step, columns as `COLUMNS`.
        initial_noise_scale: Standard deviation of the latents before the first step.
        levels: (n + 1, 2) float32 on the CPU: latents before step i are levels[i, 0] x_0 + levels[i, 1] noise; 1 and 0
            at the end.
    """

    solver: Solver
    rows: Tensor
    initial_noise_scale: float
    levels: Tensor

    @property
    def steps(self) -> int:
        """N, the number of denoising steps: UNet evaluations per row."""
        return int(self.rows.shape[0])

    @property
    def timesteps(self) -> Tensor:
        """(n,) float32, decreasing; what the UNet is told. Fractional where a solver interpolates noise levels."""
        return self.rows[:, 0]

    def from_step(self, start: int) -> "StepTable":
        """The run from a later step on, for latents that begin as a picture with the noise of that step.

        Its first step looks back at none, as that of a whole run.

        Args:
            start: 0 to n - 1.
        """
        if start == 0:
            return self
        rows = self.rows[start:].clone()
        clean, previous = COLUMNS.index("next_from_clean"), COLUMNS.index("next_from_previous_clean")
        rows[0, clean] += rows[0, previous]
        rows[0, previous] = 0.0
        return StepTable(self.solver, rows, self.initial_noise_scale, self.levels[start:])

    def noised(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """A picture's latents with the noise that latents have before a step, or when finished for step n.

        Args:
            clean: (C, h, w) or (B, C, h, w).
            noise: Standard normal, of the same shape.
            step: 0 to n.
        """
        signal, scale = self.levels[step].to(clean.device).unbind()
        return signal * clean + scale * noise


def step_table(noise_schedule: NoiseSchedule, solver: Solver, steps: int, *, field: str = "steps") -> StepTable:
    """The coefficients of a solver over a noise schedule.

    Timesteps, noise levels and their spacing are those of diffusers' scheduler of that solver, built from the base
    model's own scheduler config (`DDIMScheduler`, `EulerDiscreteScheduler`, `DPMSolverMultistepScheduler`).

    Args:
        noise_schedule: The base model's.
        solver: Which.
        steps: 1 to the number of training timesteps.
        field: Name of the field in errors.

    Raises:
        InvalidInputError: `steps` is out of range, or the solver has no such schedule for it.
        FailedPreconditionError: The base model's schedule does not admit this solver.
    """
    accepted = f"1 to {noise_schedule.training_timesteps} steps"
    if not 1 <= steps <= noise_schedule.training_timesteps:
        raise invalid_input(field, steps, accepted)
    try:
        rows, initial_noise_scale, levels = _rows(noise_schedule, solver, steps)
    except (ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise invalid_input(field, steps, f"{accepted} that {solver.value} can take here: {error}") from error
    table = torch.tensor(rows, dtype=torch.float32)
    coefficients = table[:, [i for i, name in enumerate(COLUMNS) if name != "clean_limit"]]
    finite = torch.isfinite(coefficients).all(dim=1)
    if not bool(finite[0]) and noise_schedule.prediction_type is PredictionType.EPSILON:
        raise FailedPreconditionError(
            f"{solver.value} in {steps} steps starts where this base model's latents hold no signal (zero terminal "
            "SNR), and a model that predicts noise cannot start there; choose another solver."
        )
    times = table[:, 0]
    if (
        len(table) != steps
        or not bool(finite.all())
        or times.min() < 0
        or times.max() >= len(noise_schedule.alphas_cumprod)
    ):
        # A spacing that runs out of timesteps: the same one twice, or one after the last.
        raise invalid_input(field, steps, f"{accepted} whose timesteps differ; {solver.value} has no such {steps} here")
    # Finished latents count as the picture itself, whatever trace of noise a schedule ends with.
    return StepTable(solver, table, initial_noise_scale, torch.tensor([*levels, (1.0, 0.0)], dtype=torch.float32))


def solver_step(
    rows: Tensor, latents: Tensor, model_output: Tensor, previous_clean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One denoising step of each row of a batch, whatever its solver and step.

    Args:
        rows: (B, K) float32, each row's line of its own `StepTable.rows`.
        latents: (B, C, h, w), kept in float32 from step to step.
        model_output: (B, C, h, w) of any float type, after guidance.
        previous_clean: (B, C, h, w), the clean latents this function returned for the step before. Rows at their first
            step may hold anything finite; None where no row needs it.

    Returns:
        The next latents and the predicted clean latents, both (B, C, h, w) float32.
    """
    _, _, clean_from_latents, clean_from_output, limit, from_latents, from_output, from_clean, from_previous = (
        column.view(-1, *(1,) * (latents.ndim - 1)) for column in rows.unbind(dim=1)
    )
    latents, model_output = latents.float(), model_output.float()
    clean = clean_from_latents * latents + clean_from_output * model_output
    clean = torch.maximum(torch.minimum(clean, limit), -limit)
    following = from_latents * latents + from_output * model_output + from_clean * clean
    if previous_clean is not None:
        following = following + from_previous * previous_clean.float()
    return following, clean


def scale_input(rows: Tensor, latents: Tensor) -> Tensor:
    """What the UNet reads in place of the latents (B, C, h, w), for rows (B, K)."""
    return latents * rows[:, 1].view(-1, *(1,) * (latents.ndim - 1))


def guide(unconditional: Tensor, conditional: Tensor, guidance_scales: Tensor) -> Tensor:
    """Classifier-free guidance, Ho and Salimans 2022 (arXiv 2207.12598): u + s (c - u).

    Args:
        unconditional: (B, C, h, w), the UNet's output for the negative prompt.
        conditional: (B, C, h, w), the UNet's output for the prompt.
        guidance_scales: (B,); 1 gives the conditional output.
    """
    scales = guidance_scales.to(conditional.dtype).view(-1, *(1,) * (conditional.ndim - 1))
    return unconditional + scales * (conditional - unconditional)


_Run = tuple[list[list[float]], float, list[tuple[float, float]]]


@lru_cache(maxsize=256)
def _rows(noise_schedule: NoiseSchedule, solver: Solver, steps: int) -> _Run:
    """Rows of the table, initial noise scale, levels; remembered, for diffusers takes milliseconds to set up."""
    build = {Solver.DDIM: _ddim_rows, Solver.EULER: _euler_rows, Solver.DPM_SOLVER_PP_2M: _dpm_solver_pp_2m_rows}
    return build[solver](noise_schedule, steps)


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


def _ddim_rows(noise_schedule: NoiseSchedule, steps: int) -> _Run:
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
    return rows, float(scheduler.init_noise_sigma), levels


def _euler_rows(noise_schedule: NoiseSchedule, steps: int) -> _Run:
    """Karras et al. 2022 (arXiv 2206.00364), Algorithm 1 without churn: x' = x + (s' - s) (x - y) / s."""
    scheduler = _scheduler(diffusers.EulerDiscreteScheduler, noise_schedule, steps)
    timesteps, levels = _levels(scheduler, steps)
    rows = []
    for timestep, (sigma, next_sigma) in zip(timesteps, pairwise(levels.tolist()), strict=True):
        if noise_schedule.prediction_type is PredictionType.EPSILON:
            clean = 1.0, -sigma
        else:
            clean = 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5
        ratio = _quotient(next_sigma, sigma)
        input_scale = 1 / (sigma**2 + 1) ** 0.5
        rows.append([timestep, input_scale, *clean, float("inf"), ratio, 0.0, 1 - ratio, 0.0])
    return rows, float(scheduler.init_noise_sigma), [(1.0, level) for level in levels[:steps].tolist()]


def _dpm_solver_pp_2m_rows(noise_schedule: NoiseSchedule, steps: int) -> _Run:
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
    return rows, float(scheduler.init_noise_sigma), noise_levels


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
