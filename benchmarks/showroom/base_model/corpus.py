"""The rendered photos as tensors, and their captions as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.showroom.captions import EMPTY_PROBABILITY, sample_caption
from benchmarks.showroom.factors import CLASSES, COLOURS, PATTERNS, POSES, SCENES
from benchmarks.showroom.renderer import PhotoLabels
from benchmarks.showroom.shards import load_shards

FACTORS: Final[dict[str, tuple[str, ...]]] = {
    "class": CLASSES,
    "pose": POSES,
    "scene": SCENES,
    "main colour": tuple(COLOURS),
    "accent colour": tuple(COLOURS),
    "pattern": PATTERNS,
}
"""The named factors of a photo and their words."""


class Corpus:
    """Photos of one split in memory.

    `images` (n, 3, s, s) and `masks` (n, 1, s, s) are uint8; `factors` maps the name of a factor to word numbers (n,).
    """

    def __init__(self, paths: Sequence[Path], tokenizer: CLIPTokenizer) -> None:
        """Load shards; raises as `load_shards` does."""
        photos = load_shards(paths)
        self.images = torch.from_numpy(photos.images).permute(0, 3, 1, 2).contiguous()
        self.masks = torch.from_numpy(photos.masks)[:, None].contiguous()
        self.labels: Sequence[PhotoLabels] = photos.labels
        self.factors = {
            name: torch.tensor([words.index(factor_word(labels, name)) for labels in photos.labels])
            for name, words in FACTORS.items()
        }
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: Tensor, mirrored: Tensor, device: torch.device) -> Tensor:
        """Pictures (b, 3, s, s) in [-1, 1]; those marked in `mirrored` (b,) are flipped left to right."""
        chosen = self.images[index].to(device).float() / 127.5 - 1
        return torch.where(mirrored.to(device)[:, None, None, None], chosen.flip(-1), chosen)

    def cover(self, index: Tensor, mirrored: Tensor, device: torch.device) -> Tensor:
        """Foreground masks (b, 1, s, s) in [0, 1], flipped as their pictures."""
        chosen = self.masks[index].to(device).float() / 255
        return torch.where(mirrored.to(device)[:, None, None, None], chosen.flip(-1), chosen)

    def tokens(self, index: Tensor, rng: np.random.Generator, empty_probability: float = EMPTY_PROBABILITY) -> Tensor:
        """Token ids (b, 48) of one freshly drawn caption for each photo."""
        captions = [sample_caption(self.labels[number], rng, empty_probability) for number in index.tolist()]
        return token_ids(self._tokenizer, captions)


def token_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids (b, 48), padded and cut as Stable Diffusion does."""
    encoded = tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids
    return ids


def factor_word(labels: PhotoLabels, factor: str) -> str:
    """The word of a factor in the labels of a photo."""
    subject, view = labels.subject, labels.view
    return {
        "class": subject.class_word,
        "pose": view.pose,
        "scene": view.scene,
        "main colour": subject.main_colour,
        "accent colour": subject.accent_colour,
        "pattern": subject.pattern,
    }[factor]
