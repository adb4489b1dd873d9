"""Guidance and solvers of a whole batch in one launch against the expressions of `detex_diffusion.solver`."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.kernels.contest import Contest, Inputs, input_sets
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import Solver, guide, solver_step, step_table
from detex_generator.ops.guided_solver_step import guided_solver_step
from detex_generator.ops.operation import Implementation
from detex_generator.ops.references import guided_solver_step as reference

LATENTS = (4, 64, 64)
SCHEDULE = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def contests(device: torch.device, dtype: torch.dtype) -> Iterator[Contest]:
    """Guided images of mixed solvers at 512 by 512 pixels, against torch as it comes, and compiled."""
    for images in (1, 16):
        yield _contest(images, device, dtype)


def cpu_contests() -> Iterator[Contest]:
    """One expression for a batch of mixed solvers against one image at a time."""
    yield _contest(16, torch.device("cpu"), torch.float32)


def _contest(images: int, device: torch.device, dtype: torch.dtype) -> Contest:
    size = images * LATENTS[0] * LATENTS[1] * LATENTS[2]
    set_bytes = size * (2 * dtype.itemsize + 4 * 4)
    sets = input_sets(lambda seed: _inputs(seed, images, device, dtype), set_bytes, device)
    compiled = torch.compile(reference.guided_solver_step, dynamic=False)  # when it is first called

    def by_torch(index: int) -> tuple[Tensor, Tensor]:
        rows, latents, output, unconditional, scales, previous = sets[index]
        return reference.guided_solver_step(rows, latents, output, unconditional, scales, previous)

    def by_compiled(index: int) -> tuple[Tensor, Tensor]:
        rows, latents, output, unconditional, scales, previous = sets[index]
        return compiled(rows, latents, output, unconditional, scales, previous)

    def by_kernel(index: int) -> tuple[Tensor, Tensor]:
        rows, latents, output, unconditional, scales, previous = sets[index]
        return guided_solver_step(rows, latents, output, unconditional, scales, previous, Implementation.TRITON)

    def one_by_one(index: int) -> tuple[Tensor, Tensor]:
        rows, latents, output, _, scales, previous = sets[index]
        stepped = []
        for i in range(images):
            one = slice(i, i + 1)
            predicted = guide(output[images + i : images + i + 1], output[one], scales[one])
            stepped.append(solver_step(rows[one], latents[one], predicted, previous[one]))
        return torch.cat([step[0] for step in stepped]), torch.cat([step[1] for step in stepped])

    what = f"guidance and solver step, {images} guided images of 512 by 512 pixels"
    if device.type != "cuda":
        return Contest(what, set_bytes, {"torch reference": by_torch}, {"one by one": one_by_one})
    return Contest(what, set_bytes, {"triton": by_kernel}, {"torch": by_torch, "compiled": by_compiled})


def _inputs(seed: int, images: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)

    def normal(count: int) -> Tensor:
        return torch.randn(count, *LATENTS, generator=generator, device=device)

    schedule = NoiseSchedule.from_config(SCHEDULE)
    solvers = list(Solver)
    rows = [step_table(schedule, solvers[i % len(solvers)], 25).rows[i % 20 + 2] for i in range(images)]
    return (
        torch.stack(rows).to(device),
        normal(images),
        normal(2 * images).to(dtype),
        torch.arange(images, 2 * images, dtype=torch.int32, device=device),
        torch.full((images,), 7.5, device=device),
        normal(images),
    )
