"""What is honoured of folders as others save them is what diffusers' pipelines draw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

from detex_diffusion.latents import encode_images
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import Solver, step_table
from tests.diffusion import test_pipeline_parity as parity
from tests.diffusion import test_xl_parity as xl_parity
from tests.diffusion.folders import STATISTICS, TURBO, change_json, load, scheduler, with_scheduler


def test_latent_statistics_are_the_pipelines(copy: Callable[[str], Path]) -> None:
    folder = copy("sdxl")
    plain = xl_parity.generate(load(folder), "a red mug")
    change_json("vae/config.json", **STATISTICS)(folder)
    model, pipeline = load(folder), xl_parity.pipeline_of(folder)
    wanted = xl_parity.peer_picture(model, pipeline, prompt="a red mug", height=16, width=16, guidance_scale=5.0)
    got = xl_parity.generate(model, "a red mug")
    assert float((got - wanted).abs().max()) <= 1e-4
    assert float((got - plain).abs().max()) > 1e-2
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, deviation = (torch.tensor(STATISTICS[key]).view(1, 4, 1, 1) for key in ("latents_mean", "latents_std"))
    with torch.no_grad():
        raw = pipeline.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(encode_images(model.vae, pixels), (raw - mean) * 0.5 / deviation)


@pytest.mark.parametrize(
    ("kind", "config", "solver"),
    [
        ("sd1", {"use_exponential_sigmas": True, "_class_name": "EulerDiscreteScheduler"}, Solver.EULER),
        (
            "sd1",
            {"use_exponential_sigmas": True, "_class_name": "DPMSolverMultistepScheduler"},
            Solver.DPM_SOLVER_PP_2M,
        ),
        ("sd1", {"use_lu_lambdas": True, "_class_name": "DPMSolverMultistepScheduler"}, Solver.DPM_SOLVER_PP_2M),
        ("sd1", {"set_alpha_to_one": True, "steps_offset": 0}, Solver.DDIM),
        ("sd1", {"steps_offset": 3, "timestep_spacing": "leading"}, Solver.DDIM),
        ("sd2", {"_class_name": "LMSDiscreteScheduler"}, Solver.DPM_SOLVER_PP_2M),
    ],
)
def test_variants_of_the_schedule_are_the_pipelines(
    copy: Callable[[str], Path], kind: str, config: dict[str, Any], solver: Solver
) -> None:
    folder = copy(kind)
    scheduler(**config)(folder)
    model = load(folder)
    # A pipeline reads the scheduler of the index, which stays one that needs no scipy.
    pipeline = parity.pipeline_of(folder)
    wanted = parity.peer_picture(model, pipeline, solver, prompt="a red mug", guidance_scale=5.0)
    got = parity.generate(model, "a red mug", solver=solver, guidance=5.0)
    assert float((got - wanted).abs().max()) <= 1e-4


def test_turbo_takes_one_step_without_guidance(copy: Callable[[str], Path]) -> None:
    folder = copy("sdxl")
    with_scheduler(TURBO)(folder)
    table = step_table(load(folder).noise_schedule, Solver.EULER_ANCESTRAL, 1)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.scheduler.set_timesteps(1)
    assert table.timesteps.tolist() == pipeline.scheduler.timesteps.tolist() == [999.0]
    assert table.initial_noise_scale == pytest.approx(float(pipeline.scheduler.init_noise_sigma))


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler", "HeunDiscreteScheduler", "DDIMScheduler"])
def test_a_schedule_that_says_nothing_is_its_class(name: str) -> None:
    peer = getattr(diffusers, name)()
    assert torch.equal(NoiseSchedule.from_config({"_class_name": name}).alphas_cumprod, peer.alphas_cumprod)


def test_euler_of_its_own_config_is_the_folders(copy: Callable[[str], Path]) -> None:
    folder = copy("sdxl")
    own = EulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    own.set_timesteps(7)
    table = step_table(load(folder).noise_schedule, Solver.EULER, 7)
    torch.testing.assert_close(table.levels[:, 1][:7], own.sigmas[:7])
