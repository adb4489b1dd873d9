"""Images that are drawn with pooled prompts and a kernel in the step loop, through a real generator."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.generator.running_generator import (
    RunningGenerator,
    Solver,
    generator_settings,
    pixels,
    running,
    signal_to_noise_decibels,
)
from tests.tiny_models import write_tiny_model

POOLED = "segmented_attention=triton,guided_solver_step=triton"
REQUESTS = [
    {"prompt": "a red mug on a table", "steps": 3, "seed": 5},
    {"prompt": "a lamp", "steps": 2, "seed": 6, "solver": Solver.SOLVER_DPM_SOLVER_PP_2M, "preview_interval_steps": 1},
    {"prompt": "a blue bowl", "steps": 4, "seed": 7, "guidance_scale": 1.0, "solver": Solver.SOLVER_EULER},
]


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningGenerator]]:
    folder = tmp_path_factory.mktemp("engine")
    models: dict[str, Path] = {"tiny": write_tiny_model(folder / "model")}
    with (
        running(generator_settings(models, folder / "store")) as plain,
        running(generator_settings(models, folder / "store", kernels="guided_solver_step=triton")) as solver,
        running(generator_settings(models, folder / "store", kernels=POOLED)) as pooled,
    ):
        yield {"plain": plain, "solver": solver, "pooled": pooled}


def test_images_are_the_same(generators: dict[str, RunningGenerator]) -> None:
    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        drawn = {
            name: [future.result() for future in [pool.submit(generator.draw, **request) for request in REQUESTS]]
            for name, generator in generators.items()
        }
    for plain, solver, pooled in zip(*drawn.values(), strict=True):
        assert len(plain) == len(solver) == len(pooled) == 1
        for kernels in (solver, pooled):
            assert signal_to_noise_decibels(pixels(plain[0].png), pixels(kernels[0].png)) >= 50


def test_metrics_tell_what_computes(generators: dict[str, RunningGenerator]) -> None:
    labels = {"operation": "guided_solver_step", "implementation": "triton"}
    assert generators["pooled"].metric("kernel_choice", **labels) == 1
    assert generators["plain"].metric("kernel_choice", **labels) == 0
    labels["implementation"] = "torch"
    assert generators["plain"].metric("kernel_choice", **labels) == 1
