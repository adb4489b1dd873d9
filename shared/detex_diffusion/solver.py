"""Solvers of the reverse process as tables of coefficients, so that one expression steps a batch of mixed solvers.

With x the latents, m the UNet's output and y the predicted clean latents (x_0), every solver here is

    y_i     = clamp(clean_from_latents x_i + clean_from_output m_i, -limit, limit)
    x_{i+1} = next_from_latents x_i + next_from_output m_i + next_from_clean y_i + next_from_previous_clean y_{i-1}

with scalars that depend on the solver and the step alone. The UNet reads input_scale x_i at `timestep`. Some solvers
then add fresh noise: `StepTable.added_noise` says how much, `latents.StepNoise` draws it.
Legend: B rows of a batch, n denoising steps, K columns of a table, C latent channels.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import torch
from torch import Tensor

from detex_core.errors import FailedPreconditionError, invalid_input
from detex_diffusion.noise_schedule import NoiseSchedule, PredictionType
from detex_diffusion.solver_runs import (
    Run,
    ddim_run,
    dpm_solver_pp_2m_run,
    euler_ancestral_run,
    euler_run,
    lcm_run,
    tcd_run,
)


class Solver(StrEnum):
    """How latents are stepped from noise to picture."""

    DDIM = "ddim"
    EULER = "euler"
    DPM_SOLVER_PP_2M = "dpm_solver_pp_2m"
    EULER_ANCESTRAL = "euler_ancestral"
    LCM = "lcm"
    TCD = "tcd"


DISTILLED_STEPS = 50
"""Steps that consistency models were distilled for, where their config does not say."""

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
        added_noise: (n,) float32 on the CPU, standard deviation of the fresh noise that latents get after each step; 0
            throughout for most solvers.
    """

    solver: Solver
    rows: Tensor
    initial_noise_scale: float
    levels: Tensor
    added_noise: Tensor

    @property
    def steps(self) -> int:
        """N, the number of denoising steps: UNet evaluations per row."""
        return int(self.rows.shape[0])

    @property
    def adds_noise(self) -> bool:
        """Whether any step adds noise."""
        return bool((self.added_noise > 0).any())

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
        return StepTable(self.solver, rows, self.initial_noise_scale, self.levels[start:], self.added_noise[start:])

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
    model's own scheduler config (`DDIMScheduler`, `EulerDiscreteScheduler`, `DPMSolverMultistepScheduler`,
    `EulerAncestralDiscreteScheduler`, `LCMScheduler`, `TCDScheduler`).

    Args:
        noise_schedule: The base model's.
        solver: Which.
        steps: 1 to the number of training timesteps; for consistency models to the number of steps that they were
            distilled for, 50 unless the config says otherwise.
        field: Name of the field in errors.

    Raises:
        InvalidInputError: `steps` is out of range, or the solver has no such schedule for it.
        FailedPreconditionError: The base model's schedule does not admit this solver.
    """
    most = noise_schedule.training_timesteps
    if solver in (Solver.LCM, Solver.TCD):
        most = min(most, int(noise_schedule.scheduler_config.get("original_inference_steps", DISTILLED_STEPS)))
    accepted = f"1 to {most} steps"
    if not 1 <= steps <= most:
        raise invalid_input(field, steps, accepted)
    try:
        run = _run(noise_schedule, solver, steps)
    except (ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise invalid_input(field, steps, accepted, note=f"{solver.value} fails with {steps} steps: {error}") from error
    table = torch.tensor(run.rows, dtype=torch.float32)
    coefficients = table[:, [i for i, name in enumerate(COLUMNS) if name != "clean_limit"]]
    finite = torch.isfinite(coefficients).all(dim=1)
    if not bool(finite[0]) and noise_schedule.prediction_type is PredictionType.EPSILON:
        raise FailedPreconditionError(
            f"solver: {solver.value} with {steps} steps starts at zero terminal SNR, where a base model that predicts "
            "noise cannot start; choose another solver."
        )
    times = table[:, 0]
    if (
        len(table) != steps
        or not bool(finite.all())
        or times.min() < 0
        or times.max() >= len(noise_schedule.alphas_cumprod)
    ):
        # A spacing that runs out of timesteps: the same one twice, or one after the last.
        note = f"{solver.value} has no {steps} distinct timesteps on this noise schedule"
        raise invalid_input(field, steps, accepted, note=note)
    # Finished latents count as the picture itself, whatever trace of noise a schedule ends with.
    levels = torch.tensor([*run.levels, (1.0, 0.0)], dtype=torch.float32)
    added_noise = torch.tensor(run.added_noise or [0.0] * steps, dtype=torch.float32)
    return StepTable(solver, table, run.initial_noise_scale, levels, added_noise)


def usual_solver(noise_schedule: NoiseSchedule) -> Solver:
    """The solver for requests that name none: the one that weights were distilled for, else DPM-Solver++(2M)."""
    name = str(noise_schedule.scheduler_config.get("_class_name", ""))
    return {"LCMScheduler": Solver.LCM, "TCDScheduler": Solver.TCD}.get(name, Solver.DPM_SOLVER_PP_2M)


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


@lru_cache(maxsize=256)
def _run(noise_schedule: NoiseSchedule, solver: Solver, steps: int) -> Run:
    """Remembered, for diffusers takes milliseconds to set up."""
    return _RUNS[solver](noise_schedule, steps)


_RUNS = {
    Solver.DDIM: ddim_run,
    Solver.EULER: euler_run,
    Solver.DPM_SOLVER_PP_2M: dpm_solver_pp_2m_run,
    Solver.EULER_ANCESTRAL: euler_ancestral_run,
    Solver.LCM: lcm_run,
    Solver.TCD: tcd_run,
}
