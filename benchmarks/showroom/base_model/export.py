"""Export of the checkpoints to a Stable Diffusion 1.x folder in diffusers format, fp16, every file under 16 MB."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import diffusers
import torch
from safetensors.torch import save_file

from benchmarks.showroom.base_model.architecture import build_image_processor, build_scheduler
from benchmarks.showroom.base_model.autoencoder_training import load_autoencoder
from benchmarks.showroom.base_model.diffusion_training import load_denoiser
from benchmarks.showroom.base_model.encoder_training import load_encoders
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.tokenizer import build_tokenizer, save_tokenizer

MAX_SHARD_SIZE: Final = "14MB"
_INDEX: Final[dict[str, Any]] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export_model(recipe: Recipe, work: Path, out: Path) -> None:
    """Write the model of the last checkpoints to `out`; a reader of `out` never meets half a file.

    The pipeline's parts are as Stable Diffusion's. Beside them, `text_projection/projection.safetensors` holds what
    maps the text encoder's pooled state to the space of the image encoder's embeddings.

    Raises:
        FileNotFoundError: if a phase has no checkpoint yet.
    """
    cpu = torch.device("cpu")
    tokenizer = build_tokenizer()
    denoiser = load_denoiser(recipe, tokenizer, work, cpu)
    encoders = load_encoders(recipe, tokenizer, work, cpu)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".export-") as temporary:
        folder = Path(temporary)
        save_tokenizer(tokenizer, folder / "tokenizer")
        build_scheduler().save_pretrained(folder / "scheduler")
        build_image_processor(recipe.size).save_pretrained(folder / "feature_extractor")
        parts = {
            "vae": load_autoencoder(recipe, work, cpu),
            "unet": denoiser.unet,
            "text_encoder": denoiser.text.text_model,
            "image_encoder": encoders.image,
        }
        for name, part in parts.items():
            part.half().to(memory_format=torch.contiguous_format).save_pretrained(
                folder / name, max_shard_size=MAX_SHARD_SIZE
            )
        for name in ("text_encoder", "image_encoder"):
            _ask_for_float32(folder / name / "config.json")
        (folder / "text_projection").mkdir()
        projection = {
            "text_projection.weight": encoders.text.text_projection.weight.detach().half().contiguous(),
            "logit_scale": encoders.log_scale.detach().half(),
        }
        save_file(projection, folder / "text_projection" / "projection.safetensors")
        (folder / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n", encoding="utf-8")
        _move_files(folder, out)


def _ask_for_float32(path: Path) -> None:
    """Let transformers load a part in float32 unless told otherwise, as diffusers loads the others."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _move_files(source: Path, target: Path) -> None:
    """Put the files of `source` in the place of those of `target`, one by one, and remove what is left over there."""
    fresh = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for name in sorted(fresh):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).replace(target / name)
    for path in target.rglob("*"):
        if path.is_file() and path.suffix != ".md" and path.relative_to(target) not in fresh:
            path.unlink()
