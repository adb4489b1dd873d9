"""Stable Diffusion XL against diffusers' StableDiffusionXLPipeline: text, whole pictures, concepts, company."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline

from detex_core.prompt import parse_prompt
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.concept import Concept
from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues, key_values
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.latents import decode_latents, initial_noise
from detex_diffusion.solver import Solver, guide, scale_input, solver_step, step_table
from detex_diffusion.text import TokenizedPrompt, encode_text, tokenize, tokenize_negative, word_embeddings
from detex_diffusion.unet import KeyValueUNet
from tests.diffusion.concepts import random_concept
from tests.tiny_models import write_tiny_model

PROMPT, NEGATIVE, SEED = "a red mug on a beach", "snow at night", 20
PEERS = {
    Solver.DDIM: (DDIMScheduler, {"clip_sample": False}),
    Solver.EULER: (EulerDiscreteScheduler, {}),
    Solver.DPM_SOLVER_PP_2M: (DPMSolverMultistepScheduler, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("xl") / "tiny", "sdxl")


@pytest.fixture(scope="module")
def xl(folder: Path) -> BaseModel:
    return load_base_model(BaseModelSettings(name="xl", source=str(folder)))


def pipeline_of(folder: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusionXLPipeline:
    return pipeline_of(folder)


def read(model: BaseModel, tokenized: TokenizedPrompt, concepts: Mapping[str, Concept]) -> PromptKeyValues:
    text = encode_text(model, [tokenized], [word_embeddings(tokenized, concepts)])
    assert text.pooled is not None
    used = [concepts[name] for name in tokenized.concepts]
    return key_values(model.unet, text.hidden[0], tokenized.owners, used, text.pooled[0])


@torch.no_grad()
def generate(
    model: BaseModel,
    prompt: str,
    *,
    solver: Solver = Solver.EULER,
    guidance: float = 5.0,
    negative: str = "",
    size: tuple[int, int] = (0, 0),
    concepts: Mapping[str, Concept] | None = None,
    company: int = 0,
) -> torch.Tensor:
    """Pixels (1, 3, H, W) in 0 to 1; `company` more rows of other prompts go through the same calls of the UNet."""
    concepts = concepts or {}
    table = step_table(model.noise_schedule, solver, 5)
    latents = initial_noise(SEED, (1, *model.latent_shape(*size))) * table.initial_noise_scale
    prompts = [read(model, tokenize(parse_prompt(prompt), concepts, model.tokenizer), concepts)]
    if guidance > 1:
        prompts.insert(0, read(model, tokenize_negative(parse_prompt(negative), concepts, model.text), concepts))
    strange = [tokenize(parse_prompt(f"a photo of snow {i}"), {}, model.tokenizer) for i in range(company)]
    batch = KeyValueBatch.stack([*prompts, *(read(model, each, {}) for each in strange)])
    unet, clean, rows = KeyValueUNet(model.unet, model.pixels_per_latent), None, len(prompts)
    strangers = initial_noise(99, (company, *latents.shape[1:]))
    for row in table.rows:
        scaled = scale_input(row.unsqueeze(0), latents).expand(rows, -1, -1, -1)
        times = torch.cat([row[:1].expand(rows), torch.linspace(0, 999, company)])
        output = unet(torch.cat([scaled, strangers]), times, batch)[:rows]
        if rows == 2:
            output = guide(output[:1], output[1:], torch.tensor([guidance]))
        latents, clean = solver_step(row.unsqueeze(0), latents, output, clean)
    return decode_latents(model.vae, latents).div(2).add(0.5).clamp(0, 1)


def peer_picture(
    model: BaseModel, pipeline: StableDiffusionXLPipeline, solver: Solver = Solver.EULER, **arguments: Any
) -> torch.Tensor:
    peer, overrides = PEERS[solver]
    pipeline.scheduler = peer.from_config(dict(model.noise_schedule.scheduler_config), **overrides)
    generator = torch.Generator("cpu").manual_seed(SEED)
    images = pipeline(generator=generator, num_inference_steps=5, output_type="np", **arguments).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


def test_the_folder_is_read_whole(xl: BaseModel) -> None:
    assert (xl.height, xl.width, xl.pixels_per_latent, xl.prompt_tokens) == (16, 16, 2, 77)
    assert (xl.text.widths, xl.embedding_width, xl.text.pooled_width) == ((24, 40), 64, 28)
    assert xl.vae.config.scaling_factor == 0.13025
    assert xl.size_bytes == sum(4 * p.numel() for module in xl.modules() for p in module.parameters())
    assert len({id(module) for module in xl.modules()}) == 4


@pytest.mark.parametrize("text", [PROMPT, "", "x " * 74, 'a mug? "naïve" 写真'])
def test_text_is_the_pipelines(xl: BaseModel, pipeline: StableDiffusionXLPipeline, text: str) -> None:
    with torch.no_grad():
        hidden, negative, pooled, negative_pooled = pipeline.encode_prompt(text, negative_prompt=NEGATIVE)
        got = encode_text(xl, [tokenize(parse_prompt(text), {}, xl.tokenizer)])
        refused = encode_text(xl, [tokenize_negative(parse_prompt(NEGATIVE), {}, xl.text)])
    assert torch.equal(got.hidden, hidden)
    assert torch.equal(got.pooled, pooled)
    assert torch.equal(refused.hidden, negative)
    assert torch.equal(refused.pooled, negative_pooled)


@pytest.mark.parametrize("zeros", [True, False])
def test_an_empty_negative_prompt_is_what_the_index_says(tmp_path: Path, zeros: bool) -> None:
    folder = write_tiny_model(tmp_path / "xl", "sdxl", zeros_when_unconditional=zeros)
    model = load_base_model(BaseModelSettings(name="xl", source=str(folder)))
    with torch.no_grad():
        _, negative, _, negative_pooled = pipeline_of(folder).encode_prompt("a mug", negative_prompt=None)
        got = encode_text(model, [tokenize_negative(parse_prompt(""), {}, model.text)])
    assert torch.equal(got.hidden, negative)
    assert torch.equal(got.pooled, negative_pooled)
    assert bool((negative == 0).all()) is zeros


@pytest.mark.parametrize("solver", list(PEERS))
@pytest.mark.parametrize(("guidance", "negative"), [(5.0, ""), (4.0, NEGATIVE), (1.0, "")])
def test_pictures_are_the_pipelines(
    xl: BaseModel, pipeline: StableDiffusionXLPipeline, solver: Solver, guidance: float, negative: str
) -> None:
    arguments: dict[str, Any] = {"negative_prompt": negative or None, "guidance_scale": guidance}
    wanted = peer_picture(xl, pipeline, solver, prompt=PROMPT, **arguments)
    assert largest_difference(generate(xl, PROMPT, solver=solver, guidance=guidance, negative=negative), wanted) <= 1e-4
    other = generate(xl, "a green lamp in the desert", solver=solver, guidance=guidance, negative=negative)
    assert largest_difference(other, wanted) > 1e-2  # the prompt counts


def test_the_size_of_a_picture_counts(xl: BaseModel, pipeline: StableDiffusionXLPipeline) -> None:
    wanted = peer_picture(xl, pipeline, prompt=PROMPT, height=24, width=40)
    assert largest_difference(generate(xl, PROMPT, size=(24, 40)), wanted) <= 1e-4
    told_otherwise = peer_picture(xl, pipeline, prompt=PROMPT, height=24, width=40, original_size=(512, 512))
    assert largest_difference(told_otherwise, wanted) > 1e-3


@pytest.mark.parametrize("subject_tokens", [1, 2])
def test_a_concept_is_a_pipeline_with_its_words_and_weights(xl: BaseModel, folder: Path, subject_tokens: int) -> None:
    """As Custom Diffusion is used: a new token for each embedding, in both encoders, and to_k and to_v overwritten."""
    concept = random_concept(xl, 5, scope="prompt", subject_tokens=subject_tokens)
    pipeline = pipeline_of(folder)
    tokens = [f"<my-mug-{i}>" for i in range(subject_tokens)]
    parts = (
        (pipeline.tokenizer, pipeline.text_encoder, concept.subject[:, :24]),
        (pipeline.tokenizer_2, pipeline.text_encoder_2, concept.subject[:, 24:]),
    )
    with torch.no_grad():
        for tokenizer, encoder, rows in parts:
            tokenizer.add_tokens(tokens)
            encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            encoder.get_input_embeddings().weight[-subject_tokens:] = rows
            # Pooled at the end-of-text token; by default transformers looks for the largest id, which is no longer it.
            transformer = getattr(encoder, "text_model", encoder)
            transformer.eos_token_id = tokenizer.eos_token_id
        for name, module in cross_attention_layers(pipeline.unet).items():
            for projection, delta in concept.key_value[name].projections():
                getattr(module, projection).weight += delta.materialized()
    words = " ".join(tokens)
    wanted = peer_picture(xl, pipeline, prompt=f"a photo of {words} mug on snow", guidance_scale=1.0)
    text = "a photo of [my-mug] on snow"
    got = generate(xl, text, guidance=1.0, concepts={"my-mug": concept})
    assert largest_difference(got, wanted) <= 1e-4
    # Every part of the concept counts: the words of each encoder, and the deltas.
    first, second = torch.tensor([1.0] * 24 + [0.0] * 40), torch.tensor([0.0] * 24 + [1.0] * 40)
    for kept in (first, second):
        other = generate(xl, text, guidance=1.0, concepts={"my-mug": changed(concept, subject=concept.subject * kept)})
        assert largest_difference(other, wanted) > 1e-3
    without = generate(xl, text, guidance=1.0, concepts={"my-mug": changed(concept, key_value={})})
    assert largest_difference(without, wanted) > 1e-2


def changed(concept: Concept, **fields: Any) -> Concept:
    return Concept(**{**vars(concept), **fields})


def test_a_picture_is_the_same_in_company(xl: BaseModel) -> None:
    concepts = {"a": random_concept(xl, 1), "b": random_concept(xl, 2, scope="prompt")}
    alone = generate(xl, "[a] with [b:pose:1] on snow", concepts=concepts)
    together = generate(xl, "[a] with [b:pose:1] on snow", concepts=concepts, company=5)
    error = float((alone - together).square().mean())
    assert 10 * np.log10(1 / max(error, 1e-20)) >= 50


def test_an_exclamation_mark_is_no_padding(xl: BaseModel) -> None:
    plain, marked = (
        encode_text(xl, [tokenize(parse_prompt(text), {}, xl.tokenizer)]).hidden[0] for text in ("a mug", "a mug!")
    )
    length = tokenize(parse_prompt("a mug!"), {}, xl.tokenizer).length
    assert not torch.allclose(plain[length - 2, 24:], marked[length - 2, 24:])
    padding = encode_text(xl, [tokenize(parse_prompt("a mug! ! !"), {}, xl.tokenizer)]).hidden[0]
    assert torch.equal(padding[: length - 1], marked[: length - 1])  # read from left to right


def test_half_precision_keeps_the_vae_in_float32(folder: Path, xl: BaseModel) -> None:
    half = load_base_model(BaseModelSettings(name="xl", source=str(folder)), dtype=torch.float16)
    assert (half.unet.dtype, half.text_encoder.dtype, half.vae.dtype) == (torch.float16, torch.float16, torch.float32)
    text = encode_text(half, [tokenize(parse_prompt(PROMPT), {}, half.tokenizer)])
    wanted = encode_text(xl, [tokenize(parse_prompt(PROMPT), {}, xl.tokenizer)])
    assert text.hidden.dtype == text.pooled.dtype == torch.float16
    assert float((text.hidden.float() - wanted.hidden).abs().mean()) < 0.02


def test_rows_without_a_pooled_embedding_are_refused(xl: BaseModel) -> None:
    text = encode_text(xl, [tokenize(parse_prompt(PROMPT), {}, xl.tokenizer)])
    bare = key_values(xl.unet, text.hidden[0], torch.full((77,), -1), [])
    with pytest.raises(ValueError, match="the rows have none"):
        KeyValueUNet(xl.unet, 2)(torch.zeros(1, 4, 8, 8), torch.zeros(1), KeyValueBatch.stack([bare]))
