"""The parts of a base model read from a folder in diffusers format: safetensors only, every tensor accounted for."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from detex_core.errors import FailedPreconditionError
from detex_diffusion.model_files import check_tokenizer_files, loaded_model, place_name, read_json, weight_files
from detex_diffusion.model_index import Architecture, ModelIndex, read_model_index
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.part_configs import check_parts
from detex_diffusion.scheduler_config import check_scheduler

_UNET_AND_VAE = "diffusion_pytorch_model"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


def check_folder(folder: Path) -> ModelIndex:
    """Look at all that is quick to see before gigabytes are read.

    Raises:
        FailedPreconditionError: It is no base model of a supported kind, a key of a config says what is not done here,
            parts do not fit together, or weights are pickles.
        DataLossError: A file is missing, cut off or a pointer of git-lfs, or a config cannot be read.
    """
    index = read_model_index(folder)
    check_scheduler(read_json(folder / "scheduler" / "scheduler_config.json"))
    check_parts(folder, index)
    for tokenizer, _ in index.text_parts:
        check_tokenizer_files(folder / tokenizer)
    for part, stem in weight_stems(folder, index).items():
        read_json(folder / part / "config.json")
        weight_files(folder / part, stem)
    return index


def weight_stems(folder: Path, index: ModelIndex) -> dict[str, str]:
    """Folders of the parts that have weights, each with the stem of its weight files."""
    stems = {"unet": _UNET_AND_VAE, "vae": _UNET_AND_VAE}
    stems |= {text_encoder: "model" for _, text_encoder in index.text_parts}
    if image_encoder_folder(folder) is not None:
        stems["image_encoder"] = "model"
    return stems


def load_unet(folder: Path, dtype: torch.dtype) -> Any:
    """The UNet.

    Raises:
        FailedPreconditionError: Its weights are pickles.
        DataLossError: A file is missing or damaged, or tensors are missing, unknown or of wrong shape.
    """
    return _diffusers_model(UNet2DConditionModel, folder / "unet", dtype)


def load_vae(folder: Path, dtype: torch.dtype) -> Any:
    """The VAE; raises as `load_unet`."""
    return _diffusers_model(AutoencoderKL, folder / "vae", dtype)


def vae_dtype(folder: Path, index: ModelIndex, dtype: torch.dtype) -> torch.dtype:
    """What the VAE is loaded as: XL's first ones overflow in float16 and say so (`force_upcast`)."""
    if index.architecture is Architecture.STABLE_DIFFUSION or dtype is not torch.float16:
        return dtype
    overflows = bool(read_json(folder / "vae" / "config.json").get("force_upcast", True))
    return torch.float32 if overflows else dtype


def load_noise_schedule(folder: Path) -> NoiseSchedule:
    """The forward process; raises DataLossError, and FailedPreconditionError as `NoiseSchedule.from_config`."""
    return NoiseSchedule.from_config(read_json(folder / "scheduler" / "scheduler_config.json"))


def image_encoder_folder(folder: Path) -> Path | None:
    """Where a base model keeps its image encoder, or None."""
    place = folder / "image_encoder"
    return place if place.is_dir() else None


def load_image_encoder(place: Path, base_folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """CLIP image encoder with projection and its image processor; raises as `load_unet`.

    The processor's settings are `preprocessor_config.json` beside the weights, or of the base model's
    `feature_extractor` or `image_processor`; without any they are CLIP's, at the encoder's size.
    """
    encoder = loaded_model(CLIPVisionModelWithProjection, place, "model", dtype=dtype)
    for candidate in (place, base_folder / "feature_extractor", base_folder / "image_processor"):
        if (candidate / "preprocessor_config.json").is_file():
            values = read_json(candidate / "preprocessor_config.json")
            names = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor")
            known = {key: values[key] for key in (*names, "do_normalize", "image_mean", "image_std") if key in values}
            processor = CLIPImageProcessorPil(**known)
            break
    else:
        side = encoder.config.image_size
        processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    crop = processor.crop_size
    if (crop["height"], crop["width"]) != (encoder.config.image_size, encoder.config.image_size):
        raise FailedPreconditionError(
            f"{place_name(place)}: its image processor crops to {crop['height']} by {crop['width']} pixels, the "
            f"encoder reads {encoder.config.image_size} by {encoder.config.image_size}."
        )
    return encoder, processor


def fingerprinted_files(folder: Path, index: ModelIndex) -> list[Path]:
    """The files that a concept depends on."""
    files: list[Path] = []
    for tokenizer, text_encoder in index.text_parts:
        files += [path for name in _TOKENIZER_FILES if (path := folder / tokenizer / name).is_file()]
        files += [folder / text_encoder / "config.json", *weight_files(folder / text_encoder, "model").files]
    return [
        *files,
        folder / "unet" / "config.json",
        *weight_files(folder / "unet", _UNET_AND_VAE).files,
        folder / "scheduler" / "scheduler_config.json",
    ]


def _diffusers_model(model_class: Any, place: Path, dtype: torch.dtype) -> Any:
    return loaded_model(model_class, place, _UNET_AND_VAE, torch_dtype=dtype, low_cpu_mem_usage=False)
