"""The parts of a base model read from a folder in diffusers format: safetensors only, every tensor accounted for."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from detex_core.errors import FailedPreconditionError
from detex_diffusion.model_files import loaded_model, place_name, read_json
from detex_diffusion.model_folder import UNET_AND_VAE
from detex_diffusion.model_index import Architecture, ModelIndex
from detex_diffusion.noise_schedule import NoiseSchedule


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


def _diffusers_model(model_class: Any, place: Path, dtype: torch.dtype) -> Any:
    return loaded_model(model_class, place, UNET_AND_VAE, torch_dtype=dtype, low_cpu_mem_usage=False)
