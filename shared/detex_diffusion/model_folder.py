"""The folder of a base model in diffusers format: whether it can be used, which files count; nothing large is read.

Without torch, so that a process that only describes base models starts at once.
"""

from pathlib import Path

from detex_diffusion.model_files import check_tokenizer_files, read_json, weight_files
from detex_diffusion.model_index import ModelIndex, read_model_index
from detex_diffusion.part_configs import check_parts
from detex_diffusion.scheduler_config import check_scheduler

UNET_AND_VAE = "diffusion_pytorch_model"
"""Stem of the weight files of both."""

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
    stems = {"unet": UNET_AND_VAE, "vae": UNET_AND_VAE}
    stems |= {text_encoder: "model" for _, text_encoder in index.text_parts}
    if image_encoder_folder(folder) is not None:
        stems["image_encoder"] = "model"
    return stems


def image_encoder_folder(folder: Path) -> Path | None:
    """Where a base model keeps its image encoder, or None."""
    place = folder / "image_encoder"
    return place if place.is_dir() else None


def fingerprinted_files(folder: Path, index: ModelIndex) -> list[Path]:
    """The files that a concept depends on."""
    files: list[Path] = []
    for tokenizer, text_encoder in index.text_parts:
        files += [path for name in _TOKENIZER_FILES if (path := folder / tokenizer / name).is_file()]
        files += [folder / text_encoder / "config.json", *weight_files(folder / text_encoder, "model").files]
    return [
        *files,
        folder / "unet" / "config.json",
        *weight_files(folder / "unet", UNET_AND_VAE).files,
        folder / "scheduler" / "scheduler_config.json",
    ]
