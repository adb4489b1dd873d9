"""Pictures of a concept while it is trained: a small sampler for previews and reports.

Legend: B pictures, T text tokens.
"""

import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.conditioning import KeyValueBatch, key_values
from detex_diffusion.latents import StepNoise, decode_latents, initial_noise, to_images
from detex_diffusion.solver import Solver, guide, scale_input, solver_step, step_table
from detex_diffusion.text import encode_text, tokenize, tokenize_negative, word_embeddings
from detex_diffusion.unet import KeyValueUNet
from detex_diffusion.unet_delta import unet_with_delta


@torch.no_grad()
def draw_pictures(
    base_model: BaseModel,
    prompts: Sequence[str],
    concepts: Mapping[str, Concept],
    *,
    seeds: Sequence[int],
    steps: int = 20,
    guidance_scale: float = 5.0,
    solver: Solver = Solver.DDIM,
) -> list[Image.Image]:
    """Draw a picture for each prompt.

    Args:
        base_model: On any device.
        prompts: B prompts in the prompt language.
        concepts: By the names that the prompts use, on the base model's device and of its type; at most one of them may
            have deltas of the UNet itself, with which then all pictures are drawn.
        seeds: B seeds of the initial noise.
        steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.
        solver: How the reverse diffusion is solved.

    Raises:
        InvalidInputError: A prompt names something that is not there.
    """
    drawing = base_model.unet
    for concept in concepts.values():
        if concept.unet_delta:
            drawing, _ = unet_with_delta(drawing, concept.unet_delta)
    rows = []
    read = [tokenize(parse_prompt(text), concepts, base_model.tokenizer) for text in prompts]
    nothing = tokenize_negative(parse_prompt(""), {}, base_model.text)
    for tokenized in [*read, *[nothing] * len(prompts)]:
        text = encode_text(base_model, [tokenized], [word_embeddings(tokenized, concepts)])
        pooled = None if text.pooled is None else text.pooled[0]
        used = [concepts[name] for name in tokenized.concepts]
        rows.append(
            key_values(drawing, text.hidden[0], tokenized.owners, used, pooled, subject_rows=tokenized.subject_rows)
        )
    batch = KeyValueBatch.stack(rows)
    unet = KeyValueUNet(drawing, base_model.pixels_per_latent)
    table = step_table(base_model.noise_schedule, solver, steps)
    shape = base_model.latent_shape()
    latents = torch.stack([initial_noise(seed, shape) for seed in seeds]) * table.initial_noise_scale
    latents = latents.to(base_model.device)
    previous = None
    scales = torch.full((len(prompts),), guidance_scale, device=base_model.device)
    fresh = [StepNoise(seed, shape) for seed in seeds] if table.adds_noise else []
    for row, added in zip(table.rows, table.added_noise.tolist(), strict=True):
        lines = row.expand(len(prompts), -1).to(base_model.device)
        scaled = scale_input(lines, latents).to(base_model.dtype)
        timesteps = lines[:, 0].repeat(2)
        conditional, unconditional = unet(torch.cat([scaled, scaled]), timesteps, batch).chunk(2)
        latents, previous = solver_step(lines, latents, guide(unconditional, conditional, scales), previous)
        if added > 0:
            latents = latents + added * torch.stack([noise.draw() for noise in fresh]).to(latents.device)
    return to_images(decode_latents(base_model.vae, latents))


def to_png(picture: Image.Image) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
