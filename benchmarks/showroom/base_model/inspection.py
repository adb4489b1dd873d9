"""Looking at the last checkpoints: sample grids, reconstructions with their error, loss curves, linear probes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from matplotlib.figure import Figure

from benchmarks.showroom.base_model.autoencoder_training import load_autoencoder
from benchmarks.showroom.base_model.corpus import Corpus
from benchmarks.showroom.base_model.diffusion_training import load_denoiser
from benchmarks.showroom.base_model.encoder_training import load_encoders
from benchmarks.showroom.base_model.probes import image_features, probe_accuracies
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.sampling import PROMPTS, sample_pictures, save_grid
from benchmarks.showroom.base_model.schedule import load_checkpoint
from benchmarks.showroom.base_model.tokenizer import build_tokenizer

_CPU: Final = torch.device("cpu")
_RECONSTRUCTED: Final = 64
_PROBE_PHOTOS: Final = 3000


def draw_samples(recipe: Recipe, work: Path, png: Path, guidance_scale: float, steps: int, seed: int) -> None:
    """Draw the fixed prompts and write them as one PNG. Raises FileNotFoundError if a checkpoint is missing."""
    tokenizer = build_tokenizer()
    denoiser = load_denoiser(recipe, tokenizer, work, _CPU)
    autoencoder = load_autoencoder(recipe, work, _CPU)
    pictures = sample_pictures(
        denoiser.unet, denoiser.text, autoencoder, tokenizer, PROMPTS, guidance_scale, steps, seed
    )
    save_grid(pictures, png)


@torch.no_grad()
def draw_reconstructions(recipe: Recipe, work: Path, shards: Path, png: Path) -> float:
    """Write photos and their reconstructions below them; returns the peak signal-to-noise ratio in decibels.

    Photos are of the validation split where there are any. Raises FileNotFoundError if the checkpoint is missing,
    ValueError if there are no photos.
    """
    corpus = _corpus(recipe, shards, "validation") or _corpus(recipe, shards, "train")
    if corpus is None:
        raise ValueError(f"shards: found none in {shards}")
    autoencoder = load_autoencoder(recipe, work, _CPU)
    index = torch.linspace(0, len(corpus) - 1, _RECONSTRUCTED).long()
    pictures = corpus.pixels(index, torch.zeros(len(index), dtype=torch.bool), _CPU)
    decoded = autoencoder(pictures, sample_posterior=False).sample.clamp(-1, 1)
    error = (decoded - pictures).square().mean((1, 2, 3)) / 4
    save_grid(torch.stack([pictures[:20], decoded[:20]], 1).flatten(0, 1), png, columns=8)
    return float((-10 * error.log10()).mean())


def probe(recipe: Recipe, work: Path, shards: Path) -> dict[str, float]:
    """Accuracy per factor on validation subjects. Raises FileNotFoundError or ValueError where something is missing."""
    train, held_out = _corpus(recipe, shards, "train"), _corpus(recipe, shards, "validation")
    if train is None or held_out is None:
        raise ValueError(f"shards: expected shards of the train and the validation split in {shards}")
    encoder = load_encoders(recipe, build_tokenizer(), work, _CPU).image
    return probe_accuracies(
        (image_features(encoder, train, _PROBE_PHOTOS), train),
        (image_features(encoder, held_out, _PROBE_PHOTOS), held_out),
    )


def draw_losses(work: Path, png: Path) -> None:
    """Write the loss curves of all phases that have a checkpoint, over steps, as one PNG."""
    names = {
        "autoencoder.pt": "decoder",
        "encoders.pt": "encoders",
        "diffusion.pt": "UNet",
        "alignment.pt": "alignment",
    }
    curves = {title: load_checkpoint(work / name, _CPU) for name, title in names.items()}
    known = {title: state["losses"] for title, state in curves.items() if state is not None and state["losses"]}
    if not known:
        raise FileNotFoundError(f"{work}: no phase has been trained yet")
    figure = Figure(figsize=(3.6 * len(known), 2.8), layout="constrained")
    for number, (title, losses) in enumerate(known.items(), 1):
        axis = figure.add_subplot(1, len(known), number)
        axis.plot([step for step, _, _ in losses], [loss for _, _, loss in losses], linewidth=1)
        axis.set(title=title, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(visible=True, which="both", alpha=0.3)
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=90)


def _corpus(recipe: Recipe, shards: Path, split: str) -> Corpus | None:
    paths = sorted(shards.glob(f"{split}_{recipe.size.picture_pixels}px_*.npz"))
    return Corpus(paths, build_tokenizer()) if paths else None
