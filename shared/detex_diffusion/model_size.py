"""How much memory a base model takes, told by the headers of its files before any of it is read."""

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from detex_core.errors import DataLossError
from detex_diffusion.model_files import place_name, weight_files
from detex_diffusion.model_folder import weight_stems
from detex_diffusion.model_index import ModelIndex
from detex_diffusion.model_parts import vae_dtype


def weight_bytes(folder: Path, index: ModelIndex, dtype: torch.dtype) -> int:
    """Memory of all weights of a base model's folder when it is loaded as a type.

    Raises:
        FailedPreconditionError: Weights are pickles.
        DataLossError: A file is missing, or its header is damaged.
    """
    total = 0
    for part, stem in weight_stems(folder, index).items():
        loaded_as = vae_dtype(folder, index, dtype) if part == "vae" else dtype
        files = [file for file in weight_files(folder / part, stem).files if file.suffix == ".safetensors"]
        total += loaded_as.itemsize * sum(_numbers(file) for file in files)
    return total


def _numbers(file: Path) -> int:
    """How many numbers the tensors of a file hold."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataLossError(f"{place_name(file)} cannot be read: {error}") from error
