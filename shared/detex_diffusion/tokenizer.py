"""The tokenizer of a text encoder, read without torch."""

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from detex_diffusion.model_files import check_tokenizer_files, loaded, read_json


def load_tokenizer(place: Path, encoder_place: Path) -> Any:
    """A tokenizer that reads no further than its text encoder.

    Raises:
        DataLossError: A file is missing or damaged.
    """
    check_tokenizer_files(place)
    tokenizer = loaded(place, lambda: CLIPTokenizer.from_pretrained(place, local_files_only=True))
    positions = read_json(encoder_place / "config.json").get("max_position_embeddings", 77)
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), int(positions))
    return tokenizer
