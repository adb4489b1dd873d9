"""Stable Diffusions of a few thousand random weights, written as diffusers folders, for tests of all packages."""

import json
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

Kind = Literal["sd1", "sd2", "sdxl"]

_LANGUAGE = """
a an the of in on at with and to photo picture pose background beach kitchen forest street table snow mug bowl teapot
vase lamp red blue green white standing lying coffee scene light lighting pattern desert night
"""
WORDS = tuple(_LANGUAGE.split())

# What runwayml/stable-diffusion-v1-5 and stabilityai/stable-diffusion-2-1 ship, but for the versions.
PNDM_EPSILON = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
# What stabilityai/stable-diffusion-xl-base-1.0 ships, but for the version.
EULER_EPSILON = {
    **PNDM_EPSILON,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
DDIM_VELOCITY = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
}
# Lin et al. 2024 (arXiv 2305.08891): zero terminal SNR needs trailing timesteps.
DDIM_VELOCITY_ZERO_SNR = {
    **DDIM_VELOCITY,
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
}


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in CLIP's format: bytes, bytes that end a word, merges, start and end of text."""
    letters = list(bytes_to_unicode().values())
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                tokens.append("".join(pair))
            pieces[:2] = ["".join(pair)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges


_SCHEDULERS = {"sd1": PNDM_EPSILON, "sd2": DDIM_VELOCITY, "sdxl": EULER_EPSILON}


def write_tiny_model(
    folder: Path,
    kind: Kind = "sd1",
    *,
    scheduler: dict[str, Any] | None = None,
    seed: int = 0,
    zeros_when_unconditional: bool = True,
) -> Path:
    """Write a Stable Diffusion of the given kind and return its folder.

    `sd1`: epsilon prediction, PNDM config, convolutional projections, one number of heads, padding by the end token,
    tokenizer as vocab.json and merges.txt. `sd2`: v prediction, linear projections, heads per level, padding by "!",
    tokenizer as tokenizer.json. `sdxl`: Euler config, a second text encoder of width 40 with a pooled embedding of
    width 28, whose tokenizer pads by "!", a level without cross-attention, no image encoder. Pictures are 16 by 16
    pixels, latents 4 by 8 by 8, text has 77 tokens of width 24.
    """
    torch.manual_seed(seed)
    _write_tokenizer(folder / "tokenizer", kind)
    CLIPTextModel(text_config(kind)).save_pretrained(folder / "text_encoder")
    if kind == "sdxl":
        _write_tokenizer(folder / "tokenizer_2", "sd2")
        second = text_config("sd2", hidden_size=40, num_hidden_layers=3, projection_dim=28)
        CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
    else:
        CLIPVisionModelWithProjection(vision_config()).save_pretrained(folder / "image_encoder")
    for place in folder.glob("text_encoder*"):
        _spread_words(place / "model.safetensors")
    unet = UNet2DConditionModel(**unet_config(kind))
    with torch.no_grad():
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.to_out[0].weight.mul_(4)
        if kind == "sdxl":
            unet.add_embedding.linear_2.weight.mul_(8)
    unet.save_pretrained(folder / "unet")
    vae = AutoencoderKL(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.13025 if kind == "sdxl" else 0.18215,
    )
    vae.save_pretrained(folder / "vae")
    config = scheduler or _SCHEDULERS[kind]
    _write_json(folder / "scheduler" / "scheduler_config.json", config)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", config["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if kind == "sdxl":
        index = {part: entry for part, entry in index.items() if "safety" not in part} | {
            "_class_name": "StableDiffusionXLPipeline",
            "force_zeros_for_empty_prompt": zeros_when_unconditional,
            "image_encoder": [None, None],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        }
    _write_json(folder / "model_index.json", index)
    return folder


def text_config(kind: Kind, **changes: Any) -> CLIPTextConfig:
    """A text encoder of two layers of width 24."""
    size = len(vocabulary()[0])
    values: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "hidden_act": "gelu" if kind == "sd2" else "quick_gelu",
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "pad_token_id": 0 if kind == "sd2" else size - 1,
        "projection_dim": 16,
    }
    return CLIPTextConfig(**values | changes)


def vision_config() -> CLIPVisionConfig:
    """An image encoder of pictures of 32 by 32 pixels."""
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=16,
    )


def unet_config(kind: Kind) -> dict[str, Any]:
    """A UNet of two levels with latents of 8 by 8."""
    values: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 24,
        "attention_head_dim": 2 if kind == "sd1" else (2, 4),
        "use_linear_projection": kind != "sd1",
        "norm_num_groups": 8,
    }
    if kind == "sdxl":
        values |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "cross_attention_dim": 64,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "projection_class_embeddings_input_dim": 28 + 6 * 8,
            "transformer_layers_per_block": (1, 2),
        }
    return values


def _spread_words(path: Path) -> None:
    """Move words as far apart as in a trained encoder, so that another prompt is another picture."""
    tensors = safetensors.torch.load_file(path)
    (name,) = (name for name in tensors if name.endswith("token_embedding.weight"))
    tensors[name] = tensors[name] * 20
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def _write_tokenizer(folder: Path, kind: Kind) -> None:
    vocab, merges = vocabulary()
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "!" if kind == "sd2" else "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    if kind == "sd2":
        CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, **special).save_pretrained(folder)
        return
    _write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True},
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
