"""The Triton kernel against the functions of `detex_diffusion.solver`, on real step tables."""

import pytest
import torch

from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import COLUMNS, Solver, guide, solver_step, step_table
from detex_generator.ops.guided_solver_step import guided_solver_step
from tests.kernels.interpreted.errors import TRITON, normal
from tests.tiny_models import DDIM_VELOCITY, PNDM_EPSILON

UNCONDITIONAL = torch.tensor([4, -1, 5, 6], dtype=torch.int32)
SCALES = torch.tensor([7.5, 123.0, 1.0, 0.0])


def coefficients(config: dict[str, object]) -> torch.Tensor:
    """Four images: three solvers at different steps, and one whose clean latents are limited."""
    schedule = NoiseSchedule.from_config(config)
    tables = [(Solver.DDIM, 20, 3), (Solver.EULER, 7, 6), (Solver.DPM_SOLVER_PP_2M, 12, 5), (Solver.DDIM, 4, 0)]
    rows = torch.stack([step_table(schedule, solver, steps).rows[step] for solver, steps, step in tables])
    rows[3, COLUMNS.index("clean_limit")] = 1.0
    return rows


@pytest.mark.parametrize("config", [PNDM_EPSILON, DDIM_VELOCITY], ids=["noise", "velocity"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [(4, 8, 8), (4, 24, 13)], ids=str)
def test_parity(config: dict[str, object], dtype: torch.dtype, size: tuple[int, ...]) -> None:
    rows = coefficients(config)
    latents, previous = normal(4, *size), normal(4, *size, seed=1)
    output = normal(7, *size, seed=2, dtype=dtype)
    got = guided_solver_step(rows, latents, output, UNCONDITIONAL, SCALES, previous, TRITON)

    predicted = output[:4].double()
    guided = [0, 2, 3]
    predicted[guided] = guide(output[4:].double(), predicted[guided], SCALES[guided].double())
    wanted = solver_step(rows, latents, predicted, previous)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=2e-5)


def test_what_is_no_number_stays_so() -> None:
    rows = coefficients(PNDM_EPSILON)
    output = normal(7, 4, 8, 8, dtype=torch.float16)
    output[3, 0, 0, 0] = float("nan")
    latents = normal(4, 4, 8, 8)
    following, clean = guided_solver_step(rows, latents, output, UNCONDITIONAL, SCALES, latents, TRITON)
    assert clean[3, 0, 0, 0].isnan()
    assert following.isnan().flatten(1).any(dim=1).tolist() == [False, False, False, True]
