import math
from itertools import accumulate, pairwise

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_core.errors import FailedPreconditionError, InvalidInputError
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import COLUMNS, Solver, guide, scale_input, solver_step, step_table
from tests.tiny_models import DDIM_VELOCITY, DDIM_VELOCITY_ZERO_SNR, PNDM_EPSILON

SHAPE = (2, 4, 6, 10)
PEERS = {
    Solver.DDIM: (diffusers.DDIMScheduler, {}),
    Solver.EULER: (diffusers.EulerDiscreteScheduler, {}),
    Solver.DPM_SOLVER_PP_2M: (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    ),
    Solver.EULER_ANCESTRAL: (diffusers.EulerAncestralDiscreteScheduler, {}),
    Solver.LCM: (diffusers.LCMScheduler, {}),
    Solver.TCD: (diffusers.TCDScheduler, {}),
}
MOST_STEPS = {Solver.LCM: 50, Solver.TCD: 50}
"""Those that weights of consistency models were distilled for."""
NOISY = {Solver.EULER_ANCESTRAL, Solver.LCM, Solver.TCD}
CONFIGS = {
    "sd1": PNDM_EPSILON,
    "sd2": DDIM_VELOCITY,
    "zero-snr": DDIM_VELOCITY_ZERO_SNR,
    "epsilon-trailing": {**PNDM_EPSILON, "timestep_spacing": "trailing"},
    "epsilon-linspace": {**PNDM_EPSILON, "timestep_spacing": "linspace"},
    "velocity-trailing": {**DDIM_VELOCITY, "timestep_spacing": "trailing"},
    "velocity-linspace": {**DDIM_VELOCITY, "timestep_spacing": "linspace"},
    "zero-snr-leading": {**DDIM_VELOCITY_ZERO_SNR, "timestep_spacing": "leading"},
    "zero-snr-linspace": {**DDIM_VELOCITY_ZERO_SNR, "timestep_spacing": "linspace"},
    "epsilon-zero-snr-leading": {**PNDM_EPSILON, "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True},
    "clipping": {**DDIM_VELOCITY, "clip_sample": True, "clip_sample_range": 0.7},
    "cosine": {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "squaredcos_cap_v2",
        "clip_sample": False,
        "timestep_spacing": "trailing",
    },
    "euler": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "use_karras_sigmas": True,
    },
    "dpm-third-order-sde": {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "sde-dpmsolver++",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "euler_at_final": True,
        "lower_order_final": False,
        "solver_order": 3,
        "use_karras_sigmas": True,
    },
    "dpm-sigma-min": {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "final_sigmas_type": "sigma_min",
        "prediction_type": "v_prediction",
    },
}


def noise(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def model(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """Not linear, different at every timestep, of the size of what a UNet predicts."""
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(7))
    return torch.tanh(torch.einsum("bchw,cd->bdhw", latents, mixing) + math.sin(timestep / 50)) + 0.1 * latents.roll(
        1, -1
    )


def ours(schedule: NoiseSchedule, solver: Solver, steps: int) -> list[torch.Tensor]:
    table, generator = step_table(schedule, solver, steps), torch.Generator().manual_seed(5)
    assert table.adds_noise == (solver in NOISY and steps > 1)
    latents, clean, trajectory = noise(1) * table.initial_noise_scale, None, []
    for i in range(table.steps):
        rows = table.rows[i].expand(SHAPE[0], -1)
        output = model(scale_input(rows, latents), float(table.timesteps[i]))
        latents, clean = solver_step(rows, latents, output, clean)
        if table.added_noise[i] > 0:
            latents = latents + table.added_noise[i] * torch.randn(SHAPE, generator=generator)
        trajectory.append(latents)
    return trajectory


def peers(config: dict, solver: Solver, steps: int) -> list[torch.Tensor]:
    peer, overrides = PEERS[solver]
    if solver in (Solver.DDIM, Solver.LCM):
        overrides = {"clip_sample": config.get("clip_sample", False)}
    scheduler = peer.from_config(dict(config), **overrides)
    scheduler.set_timesteps(steps)
    latents, trajectory = noise(1) * scheduler.init_noise_sigma, []
    fresh = {"generator": torch.Generator().manual_seed(5)} if solver in NOISY else {}
    for timestep in scheduler.timesteps:
        output = model(scheduler.scale_model_input(latents, timestep), float(timestep))
        latents = scheduler.step(output, timestep, latents, return_dict=False, **fresh)[0]
        trajectory.append(latents)
    return trajectory


def euler_rounding(schedule: NoiseSchedule, wanted: list[torch.Tensor]) -> list[float]:
    """Largest rounding error of diffusers' own latents after each step, whatever the machine.

    It computes x + ((x - y) / s) (s' - s) in single precision: five roundings, each of at most 2^-24 of something no
    larger than the latents before the step, 4096 times the noise at zero terminal SNR. What was wrong before a step is
    carried over and does not grow: x' lies between x and the clean latents. Ours multiplies instead of subtracting; the
    test in double precision below holds it to 1e-5.
    """
    scale = step_table(schedule, Solver.EULER, len(wanted)).initial_noise_scale
    before = [noise(1) * scale, *wanted[:-1]]
    roundings = [5 * 2**-24 * float(latents.abs().max()) for latents in before]
    return list(accumulate(roundings))


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("name", list(CONFIGS))
def test_trajectories_are_those_of_diffusers(name: str, solver: Solver) -> None:
    config = CONFIGS[name]
    schedule = NoiseSchedule.from_config(config)
    if solver is Solver.EULER_ANCESTRAL and name in ("zero-snr", "zero-snr-linspace", "cosine"):
        pytest.skip("diffusers' own loses its way in single precision; the test in double precision has them")
    if solver in MOST_STEPS and name == "epsilon-zero-snr-leading":
        with pytest.raises(FailedPreconditionError, match="zero terminal SNR"):
            step_table(schedule, solver, 4)
        return
    for steps in (1, 2, 3, 7, 14, 15, 20, 50):
        wanted = peers(config, solver, steps)
        got = ours(schedule, solver, steps)
        assert len(got) == len(wanted)
        rounding = euler_rounding(schedule, wanted) if solver is Solver.EULER else [0.0] * steps
        for a, b, error in zip(got, wanted, rounding, strict=True):
            assert torch.isfinite(b).all()
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()) + error)


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("name", ["sd1", "sd2", "zero-snr", "euler", "dpm-sigma-min"])
def test_runs_that_begin_later_are_those_of_diffusers(name: str, solver: Solver) -> None:
    """As image-to-image does: noise at the first step, and the picture noised anew for each next step."""
    config, schedule = CONFIGS[name], NoiseSchedule.from_config(CONFIGS[name])
    peer, overrides = PEERS[solver]
    for steps, start in ((4, 3), (20, 1), (20, 9)):
        scheduler = peer.from_config(dict(config), **(overrides or {"clip_sample": False}))
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps[start:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
        table = step_table(schedule, solver, steps).from_step(start)
        assert table.steps == len(timesteps)
        picture, grain = noise(2), noise(3)
        fresh = {"generator": torch.Generator().manual_seed(5)} if solver in NOISY else {}
        generator = torch.Generator().manual_seed(5)
        wanted = scheduler.add_noise(picture, grain, timesteps[:1])
        got, clean = table.noised(picture, grain, 0), None
        for i, timestep in enumerate(timesteps):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)
            # Each step from the very same latents: consistency models divide rounding errors by the signal rate, step
            # after step, so that whole runs differ between machines.
            got = wanted
            output = model(scheduler.scale_model_input(wanted, timestep), float(timestep))
            wanted = scheduler.step(output, timestep, wanted, return_dict=False, **fresh)[0]
            rows = table.rows[i].expand(SHAPE[0], -1)
            got, clean = solver_step(rows, got, model(scale_input(rows, got), float(table.timesteps[i])), clean)
            if table.added_noise[i] > 0:
                got = got + table.added_noise[i] * torch.randn(SHAPE, generator=generator)
            if i + 1 < len(timesteps):
                noised = scheduler.add_noise(picture, grain, timesteps[i + 1 : i + 2])
                torch.testing.assert_close(table.noised(picture, grain, i + 1), noised, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)
        assert torch.equal(table.noised(picture, grain, table.steps), picture)


@pytest.mark.parametrize("solver", [Solver.EULER, Solver.EULER_ANCESTRAL])
@pytest.mark.parametrize("name", ["zero-snr", "zero-snr-linspace", "sd1"])
def test_euler_is_euler_in_double_precision(name: str, solver: Solver) -> None:
    schedule = NoiseSchedule.from_config(CONFIGS[name])
    for steps in (2, 7, 20):
        scheduler = PEERS[solver][0].from_config(dict(CONFIGS[name]))
        scheduler.set_timesteps(steps)
        sigmas, generator = scheduler.sigmas.double(), torch.Generator().manual_seed(5)
        latents = noise(1).double() * float(scheduler.init_noise_sigma)
        for i, timestep in enumerate(scheduler.timesteps.tolist()):
            scale = (sigmas[i] ** 2 + 1).sqrt()
            output = model((latents / scale).float(), timestep).double()
            velocity = latents / scale**2 - sigmas[i] / scale * output
            clean = latents - sigmas[i] * output if name == "sd1" else velocity
            up = sigmas[i + 1] * (1 - (sigmas[i + 1] / sigmas[i]) ** 2).sqrt() if solver in NOISY else sigmas[i] * 0
            down = (sigmas[i + 1] ** 2 - up**2).clamp(min=0).sqrt()
            latents = latents + (latents - clean) / sigmas[i] * (down - sigmas[i])
            if up > 0:
                latents = latents + up * torch.randn(SHAPE, generator=generator)
        torch.testing.assert_close(ours(schedule, solver, steps)[-1].double(), latents, rtol=1e-5, atol=1e-5)


def test_noise_prediction_cannot_start_without_signal() -> None:
    config = {
        **PNDM_EPSILON,
        "_class_name": "DDIMScheduler",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
    schedule = NoiseSchedule.from_config(config)
    with pytest.raises(FailedPreconditionError, match="zero terminal SNR"):
        step_table(schedule, Solver.DDIM, 10)


@pytest.mark.parametrize("steps", [0, -3, 1001])
@pytest.mark.parametrize("solver", list(Solver))
def test_steps_out_of_range_are_refused(solver: Solver, steps: int) -> None:
    with pytest.raises(
        InvalidInputError, match=rf"sampling\.steps: must be 1 to {MOST_STEPS.get(solver, 1000)} steps, got -?\d+"
    ):
        step_table(NoiseSchedule.from_config(PNDM_EPSILON), solver, steps, field="sampling.steps")


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 1000),
    solver=st.sampled_from(list(Solver)),
    name=st.sampled_from(["sd1", "sd2", "zero-snr", "epsilon-linspace"]),
)
def test_any_number_of_steps_gives_a_table_or_a_refusal(steps: int, solver: Solver, name: str) -> None:
    schedule = NoiseSchedule.from_config(CONFIGS[name])
    try:
        table = step_table(schedule, solver, steps)
    except InvalidInputError:
        assert steps > MOST_STEPS.get(solver, 999)  # where some spacings run out of timesteps
        return
    assert table.rows.shape == (steps, len(COLUMNS))
    times = table.timesteps.tolist()
    assert all(a > b for a, b in pairwise(times))
    assert times[-1] >= 0
    assert times[0] < schedule.training_timesteps


def test_a_batch_of_mixed_solvers_and_steps_is_its_rows_alone() -> None:
    schedule = NoiseSchedule.from_config(DDIM_VELOCITY)
    tables = [
        step_table(schedule, solver, steps)
        for solver, steps in ((Solver.DDIM, 5), (Solver.EULER, 9), (Solver.DPM_SOLVER_PP_2M, 4))
    ]
    positions = [3, 0, 2]
    rows = torch.stack([table.rows[i] for table, i in zip(tables, positions, strict=True)])
    latents, output, previous = torch.randn(3, 3, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    following, clean = solver_step(rows, latents, output, previous)
    for i in range(3):
        one = slice(i, i + 1)
        alone = solver_step(rows[one], latents[one], output[one], previous[one])
        assert torch.equal(following[one], alone[0])
        assert torch.equal(clean[one], alone[1])


def test_half_precision_outputs_step_in_single_precision() -> None:
    rows = step_table(NoiseSchedule.from_config(PNDM_EPSILON), Solver.DDIM, 10).rows[:1]
    output = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    following, clean = solver_step(rows, output.half(), output.half())
    assert following.dtype == clean.dtype == torch.float32


def test_guidance() -> None:
    unconditional, conditional = torch.zeros(3, 1, 1, 1), torch.ones(3, 1, 1, 1)
    guided = guide(unconditional, conditional, torch.tensor([1.0, 7.5, 0.0]))
    assert guided.flatten().tolist() == [1.0, 7.5, 0.0]
