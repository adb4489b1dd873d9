"""Whole pictures against diffusers' StableDiffusionPipeline."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)

from detex_core.prompt import parse_prompt
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.concept import Concept
from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues, key_values
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.latents import decode_latents, initial_noise, to_images
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import Solver, guide, scale_input, solver_step, step_table
from detex_diffusion.text import encode, tokenize, word_embeddings
from detex_diffusion.unet import KeyValueUNet
from tests.diffusion.concepts import random_concept
from tests.tiny_models import DDIM_VELOCITY_ZERO_SNR, write_tiny_model

PROMPT, NEGATIVE, SEED = "a red mug on a beach", "snow at night", 20
PEERS = {
    Solver.DDIM: (DDIMScheduler, {"clip_sample": False}),
    Solver.EULER: (EulerDiscreteScheduler, {}),
    Solver.DPM_SOLVER_PP_2M: (DPMSolverMultistepScheduler, {}),
}


def conditioned(base_model: BaseModel, prompt: str, concepts: Mapping[str, Concept]) -> PromptKeyValues:
    tokenized = tokenize(parse_prompt(prompt), concepts, base_model.tokenizer)
    hidden = encode(base_model, [tokenized], [word_embeddings(tokenized, concepts)])[0]
    return key_values(base_model.unet, hidden, tokenized.owners, [concepts[name] for name in tokenized.concepts])


@torch.no_grad()
def generate(
    base_model: BaseModel,
    prompt: str,
    *,
    solver: Solver = Solver.DDIM,
    steps: int = 5,
    guidance: float = 7.5,
    negative: str = "",
    size: tuple[int, int] = (0, 0),
    concepts: Mapping[str, Concept] | None = None,
    company: int = 0,
) -> torch.Tensor:
    """Pixels (1, 3, H, W) in 0 to 1; `company` more rows of other prompts go through the same calls of the UNet."""
    table = step_table(base_model.noise_schedule, solver, steps)
    latents = initial_noise(SEED, (1, *base_model.latent_shape(*size))) * table.initial_noise_scale
    guided = guidance > 1
    prompts = [conditioned(base_model, text, concepts or {}) for text in ([negative] if guided else []) + [prompt]]
    others = [conditioned(base_model, f"a photo of snow {i}", {}) for i in range(company)]
    batch, unet, clean = KeyValueBatch.stack([*prompts, *others]), KeyValueUNet(base_model.unet), None
    for row in table.rows:
        rows = row.unsqueeze(0)
        scaled = scale_input(rows, latents).to(base_model.dtype).expand(len(prompts), -1, -1, -1)
        strangers = initial_noise(99, (company, *latents.shape[1:])).to(base_model.dtype)
        times = torch.cat([row[:1].expand(len(prompts)), torch.linspace(0, 999, company)])
        output = unet(torch.cat([scaled, strangers]), times, batch)[: len(prompts)]
        if guided:
            output = guide(output[:1], output[1:], torch.tensor([guidance]))
        latents, clean = solver_step(rows, latents, output, clean)
    return decode_latents(base_model.vae, latents).div(2).add(0.5).clamp(0, 1)


def pipeline_of(folder: Path, **changes: Any) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, **changes)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=["sd1", "sd2", "zero-snr"])
def pair(
    request: pytest.FixtureRequest,
    base_models: dict[str, BaseModel],
    model_folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[BaseModel, StableDiffusionPipeline]:
    """A base model and diffusers' pipeline of the same folder."""
    if request.param in base_models:
        return base_models[request.param], pipeline_of(model_folders[request.param])
    folder = write_tiny_model(tmp_path_factory.mktemp("zero"), "sd2", scheduler=DDIM_VELOCITY_ZERO_SNR, seed=3)
    return load_base_model(BaseModelSettings(name="zero-snr", source=str(folder))), pipeline_of(folder)


def peer_picture(
    base_model: BaseModel, pipeline: StableDiffusionPipeline, solver: Solver, **arguments: Any
) -> torch.Tensor:
    peer, overrides = PEERS[solver]
    pipeline.scheduler = peer.from_config(dict(base_model.noise_schedule.scheduler_config), **overrides)
    images = pipeline(
        generator=torch.Generator("cpu").manual_seed(SEED), num_inference_steps=5, output_type="np", **arguments
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("solver", list(PEERS))
@pytest.mark.parametrize(("guidance", "negative"), [(7.5, ""), (4.0, NEGATIVE), (1.0, "")])
def test_pictures_without_concepts_are_the_pipelines(
    pair: tuple[BaseModel, StableDiffusionPipeline], solver: Solver, guidance: float, negative: str
) -> None:
    base_model, pipeline = pair
    wanted = peer_picture(
        base_model, pipeline, solver, prompt=PROMPT, negative_prompt=negative or None, guidance_scale=guidance
    )
    got = generate(base_model, PROMPT, solver=solver, guidance=guidance, negative=negative)
    assert float((got - wanted).abs().max()) <= 1e-4
    other = generate(base_model, "a green lamp in the desert", solver=solver, guidance=guidance, negative=negative)
    assert float((other - wanted).abs().max()) > 1e-2  # the prompt counts


def test_pictures_that_are_not_square(pair: tuple[BaseModel, StableDiffusionPipeline]) -> None:
    base_model, pipeline = pair
    wanted = peer_picture(base_model, pipeline, Solver.EULER, prompt=PROMPT, height=24, width=40)
    got = generate(base_model, PROMPT, solver=Solver.EULER, size=(24, 40))
    assert got.shape == (1, 3, 24, 40)
    assert float((got - wanted).abs().max()) <= 1e-4


@pytest.mark.parametrize("solver", list(PEERS))
def test_a_concept_of_scope_prompt_is_a_pipeline_with_its_weights(
    base_models: dict[str, BaseModel], model_folders: dict[str, Path], solver: Solver
) -> None:
    """As Custom Diffusion is used: to_k and to_v overwritten, and a new token with its embedding.

    The unconditional row of guidance reads the base model's projections here and the overwritten ones there, so
    guidance is off; what guidance does is shown without concepts.
    """
    for kind, base_model in base_models.items():
        concept = random_concept(base_model, 5, scope="prompt")
        pipeline = pipeline_of(model_folders[kind])
        pipeline.tokenizer.add_tokens("<my-mug>")
        pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)
        with torch.no_grad():
            pipeline.text_encoder.get_input_embeddings().weight[-1] = concept.subject[0]
            for name, module in cross_attention_layers(pipeline.unet).items():
                for projection, delta in concept.key_value[name].projections():
                    getattr(module, projection).weight += delta.materialized()
        wanted = peer_picture(
            base_model, pipeline, solver, prompt="a photo of <my-mug> mug on snow", guidance_scale=1.0
        )
        concepts = {"my-mug": concept}
        got = generate(base_model, "a photo of [my-mug] on snow", solver=solver, guidance=1.0, concepts=concepts)
        assert float((got - wanted).abs().max()) <= 1e-4
        plain = {"my-mug": replace(concept, key_value={})}
        without = generate(base_model, "a photo of [my-mug] on snow", solver=solver, guidance=1.0, concepts=plain)
        assert float((without - wanted).abs().max()) > 1e-2  # the deltas count


def test_a_picture_is_the_same_in_company(base_model: BaseModel) -> None:
    concepts = {"a": random_concept(base_model, 1), "b": random_concept(base_model, 2, scope="prompt")}
    for solver in Solver:
        alone = generate(base_model, "[a] with [b] on snow", solver=solver, concepts=concepts)
        together = generate(base_model, "[a] with [b] on snow", solver=solver, concepts=concepts, company=5)
        error = float((alone - together).square().mean())
        assert 10 * np.log10(1 / max(error, 1e-20)) >= 50


def test_pictures_in_eight_bits_are_the_pipelines(pair: tuple[BaseModel, StableDiffusionPipeline]) -> None:
    base_model, pipeline = pair
    latents = initial_noise(1, (2, *base_model.latent_shape()))
    got = to_images(decode_latents(base_model.vae, latents))
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    wanted = pipeline.image_processor.postprocess(decoded, output_type="pil")
    for a, b in zip(got, wanted, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_half_precision(
    base_models: dict[str, BaseModel], model_folders: dict[str, Path], kind: str, dtype: torch.dtype
) -> None:
    base_model = load_base_model(BaseModelSettings(name="half", source=str(model_folders[kind])), dtype=dtype)
    assert {parameter.dtype for module in base_model.modules() for parameter in module.parameters()} == {dtype}
    concepts = {"c": random_concept(base_models[kind], 4)}
    wanted = generate(base_models[kind], "[c] on snow", concepts=concepts, guidance=3.0)
    halved = {"c": concepts["c"].to(dtype=dtype)}
    got = generate(base_model, "[c] on snow", concepts=halved, guidance=3.0)
    assert float((got - wanted).abs().mean()) < (0.004 if dtype is torch.float16 else 0.03)


def test_a_schedule_of_another_scheduler_class(
    base_models: dict[str, BaseModel], model_folders: dict[str, Path]
) -> None:
    """What `make it Euler` does with a folder: the config of EulerDiscreteScheduler in place of PNDM's."""
    base_model = base_models["sd1"]
    config = json.loads(
        EulerDiscreteScheduler.from_config(dict(base_model.noise_schedule.scheduler_config)).to_json_string()
    )
    other = replace(base_model, noise_schedule=NoiseSchedule.from_config(config))
    pipeline = pipeline_of(model_folders["sd1"])
    for solver in PEERS:
        wanted = peer_picture(other, copy.copy(pipeline), solver, prompt=PROMPT)
        assert float((generate(other, PROMPT, solver=solver) - wanted).abs().max()) <= 1e-4
