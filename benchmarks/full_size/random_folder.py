"""`python -m benchmarks.full_size.random_folder FOLDER --model sdxl`: a base model of full size and random weights.

Writes a folder in diffusers format that services load as any other, for machines without the published weights. The
tokenizer knows single letters alone, so prompts have at most 75 letters.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from benchmarks.full_size.architectures import ARCHITECTURES, PROMPT_TOKENS, FullSize
from benchmarks.full_size.random_weights import random_model

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_START, _END = "<|startoftext|>", "<|endoftext|>"


def write_folder(folder: Path, architecture: FullSize, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
    """Write a base model.

    Args:
        folder: New or empty.
        architecture: Its shapes.
        dtype: Of its weights.
        device: Where weights are drawn; a GPU takes seconds.
        seed: Of the weights.
    """
    generator = torch.Generator(device).manual_seed(seed)
    classes = (CLIPTextModel, CLIPTextModelWithProjection)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if architecture.is_xl else "StableDiffusionPipeline",
        "scheduler": ["diffusers", architecture.scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    index |= {"force_zeros_for_empty_prompt": True} if architecture.is_xl else {"safety_checker": [None, None]}
    for number, (config, model_class) in enumerate(zip(architecture.text_configs(), classes, strict=False), start=1):
        ending = "" if number == 1 else f"_{number}"
        vocabulary = _write_tokenizer(folder / f"tokenizer{ending}", "!" if number == 2 else _END)
        config.bos_token_id, config.eos_token_id = vocabulary[_START], vocabulary[_END]
        text_encoder = random_model(partial(model_class, config), device, dtype, generator)
        text_encoder.save_pretrained(folder / f"text_encoder{ending}")
        index |= {
            f"tokenizer{ending}": ["transformers", "CLIPTokenizer"],
            f"text_encoder{ending}": ["transformers", model_class.__name__],
        }
        del text_encoder
    unet = random_model(lambda: UNet2DConditionModel(**architecture.unet), device, dtype, generator)
    unet.save_pretrained(folder / "unet")
    del unet
    vae = random_model(lambda: AutoencoderKL(**architecture.vae_config), device, dtype, generator)
    vae.save_pretrained(folder / "vae")
    _write_json(folder / "scheduler" / "scheduler_config.json", architecture.scheduler)
    _write_json(folder / "model_index.json", index)


def _write_tokenizer(folder: Path, padding: str) -> dict[str, int]:
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), _START, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=[],
        model_max_length=PROMPT_TOKENS,
        bos_token=_START,
        eos_token=_END,
        unk_token=_END,
        pad_token=padding,
    )
    tokenizer.save_pretrained(folder)
    return vocabulary


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(content), indent=2), encoding="utf-8")


def main() -> int:
    """Write what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size.random_folder", description=__doc__)
    parser.add_argument("folder", type=Path, help="new or empty")
    parser.add_argument("--model", choices=ARCHITECTURES, default="sdxl", help="which shapes")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of the weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where they are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    arguments = parser.parse_args()
    if arguments.folder.exists() and any(arguments.folder.iterdir()):
        parser.error(f"{arguments.folder} is not empty")
    device = torch.device(arguments.device)
    write_folder(arguments.folder, ARCHITECTURES[arguments.model], DTYPES[arguments.dtype], device, arguments.seed)
    size_bytes = sum(file.stat().st_size for file in arguments.folder.rglob("*") if file.is_file())
    print(f"{ARCHITECTURES[arguments.model].name} of random weights: {size_bytes / 1e9:.2f} GB in {arguments.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
