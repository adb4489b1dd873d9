"""The parts of a base model read from a folder in diffusers format: safetensors only, every tensor accounted for."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from detex_core.errors import DataLossError, FailedPreconditionError
from detex_diffusion.noise_schedule import NoiseSchedule

_T = TypeVar("_T")
_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


def check_folder(folder: Path) -> None:
    """Look at all that is quick to see before gigabytes are read.

    Raises:
        FailedPreconditionError: It is no Stable Diffusion 1.x or 2.x, or its weights are pickles.
        DataLossError: A file is missing, or a config cannot be read.
    """
    _check_index(folder)
    read_json(folder / "scheduler" / "scheduler_config.json")
    read_json(folder / "tokenizer" / "tokenizer_config.json")
    stems = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
    if image_encoder_folder(folder) is not None:
        stems["image_encoder"] = "model"
    for part, stem in stems.items():
        read_json(folder / part / "config.json")
        weight_files(folder / part, stem)


def _check_index(folder: Path) -> None:
    index = read_json(folder / "model_index.json")
    for part, expected in _CLASSES.items():
        entry = index.get(part)
        given = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        # Folders written by older releases name the fast tokenizer.
        if given not in (expected, f"{expected}Fast"):
            raise FailedPreconditionError(
                f"Base model in {folder.name!r}: model_index.json gives {given!r} as {part}; Stable Diffusion 1.x and "
                f"2.x have {expected}."
            )
    if index.get("text_encoder_2"):
        raise FailedPreconditionError(
            f"Base model in {folder.name!r}: it has two text encoders; Stable Diffusion 1.x and 2.x have one."
        )


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file; raises DataLossError where the file is missing or holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataLossError(f"{_place(path)} is missing.") from None
    except (OSError, ValueError) as error:
        raise DataLossError(f"{_place(path)} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataLossError(f"{_place(path)} holds no JSON object.")
    return content


def load_tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer; raises DataLossError where its files are missing or damaged."""
    place = folder / "tokenizer"
    if not (place / "tokenizer.json").is_file() and not (
        (place / "vocab.json").is_file() and (place / "merges.txt").is_file()
    ):
        raise DataLossError(f"{_place(place)} lacks tokenizer.json, or vocab.json and merges.txt.")
    tokenizer = _loaded(place, lambda: CLIPTokenizer.from_pretrained(place, local_files_only=True))
    positions = read_json(folder / "text_encoder" / "config.json").get("max_position_embeddings", 77)
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), int(positions))
    return tokenizer


def load_text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    """The CLIP text encoder; raises as `load_unet`."""
    return _transformers_model(CLIPTextModel, folder / "text_encoder", dtype)


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
    encoder = _transformers_model(CLIPVisionModelWithProjection, place, dtype)
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
            f"{_place(place)}: its image processor crops to {crop['height']} by {crop['width']} pixels, the encoder "
            f"reads {encoder.config.image_size} by {encoder.config.image_size}."
        )
    return encoder, processor


def fingerprinted_files(folder: Path) -> list[Path]:
    """The files that a concept depends on."""
    tokenizer = [path for name in _TOKENIZER_FILES if (path := folder / "tokenizer" / name).is_file()]
    return [
        *tokenizer,
        folder / "text_encoder" / "config.json",
        *weight_files(folder / "text_encoder", "model").files,
        folder / "unet" / "config.json",
        *weight_files(folder / "unet", "diffusion_pytorch_model").files,
        folder / "scheduler" / "scheduler_config.json",
    ]


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files of a part.

    Attributes:
        files: One file, or the index of several and then these.
        variant: `fp16` where the names say so, otherwise None.
    """

    files: tuple[Path, ...]
    variant: str | None


def weight_files(place: Path, stem: str) -> WeightFiles:
    """Where the weights of a part lie: in one file or in several with an index, of full or half precision.

    Raises:
        FailedPreconditionError: The weights are pickles.
        DataLossError: There are none, or one that the index names is missing.
    """
    for variant, name, index in (
        (None, f"{stem}.safetensors", f"{stem}.safetensors.index.json"),
        ("fp16", f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json"),
    ):
        if (place / name).is_file():
            return WeightFiles((place / name,), variant)
        if (place / index).is_file():
            return WeightFiles((place / index, *_indexed_files(place / index)), variant)
    if any(any(place.glob(pattern)) for pattern in ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")):
        raise FailedPreconditionError(
            f"{_place(place)} holds its weights as pickle, which can run code when read and is refused; convert it to "
            f"{stem}.safetensors."
        )
    raise DataLossError(f"{_place(place)} lacks {stem}.safetensors.")


def _indexed_files(index: Path) -> list[Path]:
    """The files that an index spreads the tensors over, in the order of their names."""
    spread = read_json(index).get("weight_map")
    names: set[str] = {str(name) for name in spread.values()} if isinstance(spread, dict) else set()
    # A name with a separator would lead out of the folder.
    if not names or any(name != Path(name).name for name in names):
        raise DataLossError(f"{_place(index)} does not say which file of its folder holds which tensor.")
    files = [index.parent / name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise DataLossError(f"{_place(file)} is missing, which {index.name} names.")
    return files


def _diffusers_model(model_class: Any, place: Path, dtype: torch.dtype) -> Any:
    return _model(model_class, place, "diffusion_pytorch_model", torch_dtype=dtype, low_cpu_mem_usage=False)


def _transformers_model(model_class: Any, place: Path, dtype: torch.dtype) -> Any:
    return _model(model_class, place, "model", dtype=dtype)


def _model(model_class: Any, place: Path, stem: str, **options: Any) -> Any:
    read_json(place / "config.json")
    weights = weight_files(place, stem)
    model, report = _loaded(
        place,
        lambda: model_class.from_pretrained(
            place,
            variant=weights.variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        ),
    )
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(name) for name in report.get(key) or [] if not str(name).endswith("position_ids"))
        if names:
            shown = ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
            raise DataLossError(f"{_place(weights.files[0])} does not fit its config: {key.replace('_', ' ')} {shown}.")
    return model


def _loaded(place: Path, load: Callable[[], _T]) -> _T:
    """What `load` gives; whatever a library raises about a damaged file becomes a DataLossError."""
    # Bars of the libraries' own, one for each part, would garble the logs of a service.
    barred = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in barred:
        library.disable_progress_bar()
    try:
        return load()
    except MemoryError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        message = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataLossError(f"{_place(place)} cannot be loaded: {message}") from error
    finally:
        for library in barred:
            library.enable_progress_bar()


def _place(path: Path) -> str:
    return f"{path.parent.name}{os.sep}{path.name}"
