"""Stable Diffusions of a few thousand random weights, written as diffusers folders, for tests of all packages."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

Kind = Literal["sd1", "sd2"]

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


def write_tiny_model(
    folder: Path, kind: Kind = "sd1", *, scheduler: dict[str, Any] | None = None, seed: int = 0
) -> Path:
    """Write a Stable Diffusion of the given kind and return its folder.

    `sd1`: epsilon prediction, PNDM config, convolutional projections, one number of heads, padding by the end token,
    tokenizer as vocab.json and merges.txt. `sd2`: v prediction, linear projections, heads per level, padding by "!",
    tokenizer as tokenizer.json. Pictures are 16 by 16 pixels, latents 4 by 8 by 8, text has 77 tokens of width 24.
    """
    torch.manual_seed(seed)
    _write_tokenizer(folder / "tokenizer", kind)
    size = len(vocabulary()[0])
    text = CLIPTextConfig(
        vocab_size=size,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu" if kind == "sd1" else "gelu",
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1 if kind == "sd1" else 0,
        projection_dim=16,
    )
    text_encoder = CLIPTextModel(text)
    with torch.no_grad():
        # As far apart as in a trained encoder, so that another prompt is another picture.
        text_encoder.embeddings.token_embedding.weight.mul_(20)
    text_encoder.save_pretrained(folder / "text_encoder")
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=16,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=2 if kind == "sd1" else (2, 4),
        use_linear_projection=kind == "sd2",
        norm_num_groups=8,
    )
    with torch.no_grad():
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.to_out[0].weight.mul_(4)
    unet.save_pretrained(folder / "unet")
    vae = AutoencoderKL(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    )
    vae.save_pretrained(folder / "vae")
    config = scheduler or (PNDM_EPSILON if kind == "sd1" else DDIM_VELOCITY)
    _write_json(folder / "scheduler" / "scheduler_config.json", config)
    _write_json(
        folder / "model_index.json",
        {
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
        },
    )
    return folder


def _write_tokenizer(folder: Path, kind: Kind) -> None:
    vocab, merges = vocabulary()
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>" if kind == "sd1" else "!",
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
