"""Weights that were distilled for few steps, and guidance in a part of the steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from detex_core.settings import BaseModelSettings
from detex_protos.v1.generator_pb2 import GuidanceInterval
from tests.generator.running_generator import RunningGenerator, Solver, generator_settings, pixels, running
from tests.tiny_models import EULER_EPSILON, PNDM_EPSILON, write_tiny_model

PROMPT, SEED = "a red mug on a table", 7
# What SD-Turbo and SDXL-Turbo ship.
TURBO = {**EULER_EPSILON, "timestep_spacing": "trailing"}
CONSISTENT = {**PNDM_EPSILON, "_class_name": "LCMScheduler", "original_inference_steps": 50}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("distilled")
    return {
        "turbo": write_tiny_model(folder / "turbo", "sd2", scheduler=TURBO),
        "lcm": write_tiny_model(folder / "lcm", "sd1", scheduler=CONSISTENT),
    }


@pytest.fixture(scope="module")
def distilled(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGenerator]:
    settings = generator_settings(folders, tmp_path_factory.mktemp("store"))
    models = (
        BaseModelSettings(
            name="turbo",
            source=str(folders["turbo"]),
            default_steps=1,
            default_guidance_scale=0,
            default_solver="euler",
        ),
        BaseModelSettings(name="lcm", source=str(folders["lcm"]), default_steps=4, default_guidance_scale=1.5),
    )
    with running(settings.model_copy(update={"base_models": models})) as started:
        yield started


def expected(folder: Path, scheduler: type[Any] | None, **arguments: Any) -> Any:
    """Levels (H, W, 3) of diffusers' pipeline, in float."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, image_encoder=None)
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(SEED)
    return pipeline(PROMPT, generator=generator, output_type="np", **arguments).images[0] * 255


def check(png: bytes, levels: Any) -> None:
    assert np.abs(pixels(png) - levels).max() <= 0.5 + 255e-4


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_turbo_weights_draw_in_one_to_four_steps(
    distilled: RunningGenerator, folders: dict[str, Path], steps: int
) -> None:
    wanted = expected(folders["turbo"], None, num_inference_steps=steps, guidance_scale=0.0)
    (image,) = distilled.draw(prompt=PROMPT, base_model="turbo", seed=SEED, steps=steps)
    check(image.png, wanted)
    assert (image.provenance.solver, image.provenance.guidance_scale) == (Solver.SOLVER_EULER, 0)
    ancestral = expected(
        folders["turbo"],
        diffusers.EulerAncestralDiscreteScheduler,
        num_inference_steps=steps,
        guidance_scale=0.0,
    )
    solver = Solver.SOLVER_EULER_ANCESTRAL
    (image,) = distilled.draw(prompt=PROMPT, base_model="turbo", seed=SEED, steps=steps, solver=solver)
    check(image.png, ancestral)


def test_what_requests_leave_out_is_the_base_models(distilled: RunningGenerator, folders: dict[str, Path]) -> None:
    (image,) = distilled.draw(prompt=PROMPT, base_model="turbo", seed=SEED)
    assert (image.provenance.steps, image.provenance.guidance_scale) == (1, 0)
    check(image.png, expected(folders["turbo"], None, num_inference_steps=1, guidance_scale=0.0))
    (image,) = distilled.draw(prompt=PROMPT, base_model="lcm", seed=SEED)
    assert (image.provenance.steps, image.provenance.solver) == (4, Solver.SOLVER_LCM)
    check(image.png, expected(folders["lcm"], None, num_inference_steps=4, guidance_scale=1.5))


def test_fresh_noise_is_the_same_alone_and_in_company(distilled: RunningGenerator) -> None:
    alone = distilled.draw(prompt=PROMPT, base_model="lcm", seed=SEED, steps=6)[0].png
    together = distilled.draw(prompt=PROMPT, base_model="lcm", seed=SEED - 2, count=4, steps=6)
    assert [image.seed for image in together] == [5, 6, 7, 8]
    assert np.abs(pixels(together[2].png) - pixels(alone)).max() <= 1
    assert len({image.png for image in together}) == 4


def test_guidance_ends_where_it_is_told_to(distilled: RunningGenerator, folders: dict[str, Path]) -> None:
    def end_guidance(pipeline: Any, step: int, timestep: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        """As diffusers documents guidance that ends early: the negative prompt's row is left out."""
        if step == 2:
            arguments["prompt_embeds"] = arguments["prompt_embeds"].chunk(2)[-1]
            pipeline._guidance_scale = 0.0
        return arguments

    wanted = expected(
        folders["turbo"],
        None,
        num_inference_steps=6,
        guidance_scale=6.0,
        callback_on_step_end=end_guidance,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    request: dict[str, Any] = {"prompt": PROMPT, "base_model": "turbo", "seed": SEED, "steps": 6, "guidance_scale": 6}
    (image,) = distilled.draw(**request, guidance_interval=GuidanceInterval(end=0.5))
    check(image.png, wanted)
    told = image.provenance.guidance_interval
    assert (told.start, told.end) == (0, 0.5)
    (whole,) = distilled.draw(**request)
    assert not whole.provenance.HasField("guidance_interval")
    assert whole.png != image.png


def test_steps_without_guidance_take_one_row(distilled: RunningGenerator) -> None:
    def rows() -> float:
        return distilled.metric("batch_rows_sum")

    request: dict[str, Any] = {"prompt": PROMPT, "base_model": "turbo", "seed": SEED, "steps": 8, "guidance_scale": 6}
    before = rows()
    distilled.draw(**request, guidance_interval=GuidanceInterval(start=0.25, end=0.75))
    assert rows() - before == 4 * 2 + 4
    before = rows()
    distilled.draw(**request, guidance_interval=GuidanceInterval(start=0.3, end=0.31))
    assert rows() - before == 8
