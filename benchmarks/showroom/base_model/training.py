"""The four phases in their order: autoencoder, encoders, diffusion, alignment; then the export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks.showroom.base_model.autoencoder_training import train_autoencoder
from benchmarks.showroom.base_model.corpus import Corpus
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.sampling import save_grid
from benchmarks.showroom.base_model.tokenizer import build_tokenizer

PHASES: Final[dict[str, float]] = {"autoencoder": 0.14, "encoders": 0.06, "diffusion": 0.75, "alignment": 0.05}
"""Phases and their shares of the time."""


def train(
    recipe: Recipe,
    shards: Path,
    work: Path,
    out: Path,
    device: torch.device,
    budget_seconds: float,
    phases: Sequence[str],
    report: Callable[[str], None],
) -> None:
    tokenizer = build_tokenizer()
    corpus = Corpus(sorted(shards.glob(f"train_{recipe.size.picture_pixels}px_*.npz")), tokenizer)
    report(f"{len(corpus)} photos")
    if "autoencoder" in phases:
        model = train_autoencoder(corpus, recipe, PHASES["autoencoder"] * budget_seconds, work, device, report)
        index = torch.arange(0, min(len(corpus), 64 * 16), 64)
        pictures = corpus.pixels(index, torch.zeros(len(index), dtype=torch.bool), device)
        with torch.no_grad():
            decoded = model(pictures, sample_posterior=False).sample
        save_grid(torch.cat([pictures, decoded]), work / "reconstructions.png", columns=len(index))
